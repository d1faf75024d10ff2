"""What the networks of these families have in common: `models.families.family.Networks` over a model of the library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from torch import nn

from models.base import Task
from models.families.library import parts
from models.families.library.preprocessing import preprocessing
from models.framing import Fit
from models.inputs import Preprocessing
from models.layers.tower import Tower
from models.weights import CheckpointError, Names, Tied


class LibraryNetworks(ABC):
    """A part of the model is the tower, in the serving dtype throughout, as the library has no parts that stay exact;
    the rest is the network, in float32."""

    fits: frozenset[Fit]  # of pictures, that do
    sees_all = True  # of a picture, or what is cut off could not be found
    refilled: Mapping[str, parts.Refill] = {}  # buffers of its own, which no file has

    def __init__(self, config: str, architectures: Mapping[Task, str], image_processor: str) -> None:
        """Classes go by their names in transformers. `image_processor`: where preprocessor_config.json names none."""
        self.CONFIG = getattr(transformers, config)
        self.ARCHITECTURES = dict(architectures)
        self.TIED: Tied = {}
        self._image_processor = image_processor

    def check(self, _: Task, config: Any, /) -> None:  # noqa: B027
        """The library refuses what it cannot compute."""

    def preprocessing(self, processor: Mapping[str, Any], config: Any, /) -> Preprocessing:
        """Raises CheckpointError: it cuts off what then could not be found."""
        made = preprocessing(processor, self._image_processor, self.image_size(config))
        how = made.framing
        is_cut = how.fit is not Fit.WHOLE and how.side < how.enough
        if how.fit not in self.fits or (self.sees_all and is_cut):
            raise CheckpointError("the preprocessor does not make of the whole picture what the model takes")
        return made

    def image_size(self, config: Any, /) -> int | None:
        """Pixels that the tower takes; None: any."""
        size: int = config.vision_config.image_size
        return size

    def whole(self, config: Any, task: Task | None = None) -> Any:
        """The model for the task, or any, without weights."""
        architecture = next(iter(self.ARCHITECTURES.values())) if task is None else self.ARCHITECTURES[task]
        return parts.whole(architecture, config, self.refilled)

    @abstractmethod
    def build_tower(self, config: Any, /) -> Tower: ...

    @abstractmethod
    def build(self, task: Task, config: Any, /) -> nn.Module: ...

    def set_dtypes(self, module: nn.Module, dtype: torch.dtype, /) -> None:
        module.to(dtype if isinstance(module, Tower) else torch.float32)

    def quantizable(self, network: nn.Module, /) -> nn.Module:
        return network

    def language_model_of(self, _: nn.Module, /) -> None:
        return None

    @abstractmethod
    def tower_names(self) -> dict[str, str]:
        """Where the parts of the tower, by their names in it, are in the model."""

    def hugging_face_names(self, module: nn.Module, /) -> Names:
        """With the buffers that are weights."""
        names = self.tower_names() if isinstance(module, Tower) else {}

        def name_of(ours: str) -> str:
            first, dot, rest = ours.partition(".")
            return names.get(first, first) + dot + rest

        return {name: (name_of(name),) for name in module.state_dict()}

    def canonical(self, config: Any, /) -> Callable[[str], str]:
        return parts.canonical(self.whole(config))
