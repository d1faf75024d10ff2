"""Base classes of the real runners: the unit, and a clear error for every op that it does not have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from models.base import Capabilities, Generation, InputError, Item, Kept
from models.inputs import Input
from models.layers.attention import KeyValue, Source
from models.layers.kernels import Shape
from models.layers.linear import Int8Linear
from models.layers.rows import Layers, owned, source_of
from models.outputs import Features, Localized, Scores
from models.runners.text import ImageGroups

T = TypeVar("T")


class UnitRunner(ABC):
    """A `ModelRunner`. Subclasses implement `prepare`, and the ops of the items that it makes."""

    def __init__(self, unit: str, capabilities: Capabilities | None = None) -> None:
        self.unit = unit
        self.capabilities = capabilities or Capabilities()
        self._kept: Kept | None = None  # what heads make of images

    def keep_in(self, kept: Kept) -> None:
        self._kept = kept

    @abstractmethod
    def prepare(self, request: Input) -> Item: ...

    def encode(self, batch: Sequence[Item]) -> list[Features]:  # noqa: ARG002
        raise self._has_no("encode")

    def score(self, batch: Sequence[Item]) -> list[Scores]:  # noqa: ARG002
        raise self._has_no("score")

    def generate(self, batch: Sequence[Item]) -> Generation:  # noqa: ARG002
        raise self._has_no("generate")

    def localize(self, batch: Sequence[Item]) -> list[Localized]:  # noqa: ARG002
        raise self._has_no("localize")

    def _has_no(self, op: str) -> TypeError:
        return TypeError(f"the unit {self.unit} does not {op}")


class HeadsRunner(UnitRunner):
    """The heads of a checkpoint: a network on a device."""

    def __init__(self, unit: str, network: Any, device: torch.device, capabilities: Capabilities | None = None) -> None:
        super().__init__(unit, capabilities)
        self.network = network
        self._device = device
        # Of keys and values that would be float32. Products in int8 are less exact than half precision, and to convert
        # them in each attention call takes a CPU no longer than to read twice the bytes.
        int8 = any(isinstance(part, Int8Linear) and part.shape is not Shape.HEAD for part in network.modules())
        self._exact = torch.float16 if int8 else torch.float32

    def _looked_at(self, images: ImageGroups, look_at: Callable[[Tensor], Source]) -> Source:
        """The images' keys and values, which `look_at` makes of the features of one, `(1, tokens, width)`; each image's
        lines look at them."""
        return source_of(self._layers_of(images, look_at), images.lines)

    def _layers_of(self, images: ImageGroups, look_at: Callable[[Tensor], Source]) -> list[Layers]:
        """As `_looked_at`, of each image."""

        def make(features: Tensor) -> Iterator[Layers]:
            # On a CPU one image at a time, for the memory; elsewhere all at once, for the launches.
            for part in torch.split(features, 1 if features.is_cpu else len(features)):
                layers = look_at(part).layers
                for number in range(len(part)):
                    one = slice(number, number + 1)
                    yield owned([KeyValue(key[one], value[one]) for key, value in layers], self._exact)

        return self._made_of(images, make)

    def _made_of(self, images: ImageGroups, make: Callable[[Tensor], Iterable[T]]) -> list[T]:
        """Of each image what `make` makes of the features of some, `(images, tokens, width)`: tensors that hold nothing
        else. It is kept, but not of videos, whose features come together anew in every request."""
        if self._kept is None or images.num_frames > 1:
            return list(make(images.images))
        features = [one for (one,) in images.frames]
        found: list[T | None] = [self._kept.get(self.unit, one) for one in features]
        new = [number for number, made in enumerate(found) if made is None]
        if new:
            for number, made in zip(new, make(images.images[new]), strict=True):
                found[number] = made
                self._kept.keep(self.unit, features[number], stored_bytes(made), made)
        return [made for made in found if made is not None]

    def _unsupported(self, request: Input) -> InputError:
        return InputError(f"{self.unit} does not take {type(request).__name__}")


def stored_bytes(made: Any) -> int:
    """What tensors, or nested sequences of them, keep in memory: the storages that they are views of, in whole."""
    return sum(storage.nbytes() for storage in _storages(made).values())


def _storages(made: Any) -> dict[int, torch.UntypedStorage]:
    if isinstance(made, Tensor):
        storage = made.untyped_storage()
        return {storage.data_ptr(): storage}
    return {place: storage for part in made for place, storage in _storages(part).items()}
