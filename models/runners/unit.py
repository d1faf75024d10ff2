"""Base classes of the real runners: the unit, and a clear error for every op that it does not have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from models.base import Capabilities, Features, Generation, Input, InputError, Item, Kept, Localized, Scores
from models.layers.attention import KeyValue, Source
from models.runners.text import ImageGroups


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

    def _looked_at(self, images: ImageGroups, look_at: Callable[[Tensor], Source]) -> Source:
        """The images' keys and values, which `look_at` makes of their features `(images, tokens, width)`; each image's
        lines look at them."""
        made = self._made_of(images, lambda features: [one for layer in look_at(features).layers for one in layer])
        return Source([KeyValue(*pair) for pair in zip(made[::2], made[1::2], strict=True)], lines=images.lines)

    def _made_of(self, images: ImageGroups, make: Callable[[Tensor], Sequence[Tensor]]) -> Sequence[Tensor]:
        """What `make` makes of the features `(images, tokens, width)`: tensors with a row for each image. It is kept,
        but not of videos, whose features come together anew in every request."""
        if self._kept is None or images.num_frames > 1:
            return make(images.images)
        features = [one for (one,) in images.frames]
        found: list[Sequence[Tensor] | None] = [self._kept.get(self.unit, one) for one in features]
        new = [number for number, made in enumerate(found) if made is None]
        if new:
            made = make(images.images if len(new) == len(found) else images.images[new])
            for row, number in enumerate(new):
                own = [tensor[row : row + 1] for tensor in made]
                found[number] = own
                self._keep(features[number], own)
            if len(new) == len(found):
                return made
        every = [made for made in found if made is not None]
        return every[0] if len(every) == 1 else [torch.cat(rows) for rows in zip(*every, strict=True)]

    def _keep(self, features: Tensor, made: Sequence[Tensor]) -> None:
        """As it is where that holds nothing else, or a copy: a view would hold what was made of the whole batch."""
        assert self._kept is not None
        num_bytes = sum(tensor.nbytes for tensor in made)
        if stored_bytes(made) == num_bytes:
            self._kept.keep(self.unit, features, num_bytes, lambda: made)
        else:
            self._kept.keep(self.unit, features, num_bytes, lambda: [tensor.clone() for tensor in made])

    def _unsupported(self, request: Input) -> InputError:
        return InputError(f"{self.unit} does not take {type(request).__name__}")


def stored_bytes(tensors: Sequence[Tensor]) -> int:
    """What they keep in memory: the storages that they are views of, in whole."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
    return sum(storage.nbytes() for storage in storages.values())
