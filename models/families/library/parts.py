"""A model of the library, taken apart: its tower, and all else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from models.layers.tower import Tower
from models.weights import CheckpointError

Refill = Callable[[torch.Size], Tensor]
# What buffers hold that are no weights, so that no file has them: by name, of so many entries.
REFILLED: dict[str, Refill] = {
    "position_ids": lambda shape: torch.arange(shape[-1]).expand(shape),
    "token_type_ids": lambda shape: torch.zeros(shape, dtype=torch.long),
}


class LibraryTower(Tower):
    """A part of a model, whose output is narrowed to what its heads use: the less of it, the more fit the cache."""

    def __init__(self, part: nn.Module, narrow: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.config = part.config
        self.part = part
        self._narrow = narrow

    def forward(self, pixels: Tensor) -> Tensor:
        """-> `(images, tokens, width)`, as `narrow` makes it of the part's output."""
        dtype = next(self.part.parameters()).dtype
        return self._narrow(self.part(pixel_values=pixels.to(dtype)))


def whole(architecture: str, config: Any, refilled: Mapping[str, Refill] = {}) -> Any:
    """The model without weights, on the meta device but for the buffers that no file has: REFILLED, and `refilled` of
    its own. Raises CheckpointError."""
    known = {**REFILLED, **refilled}
    with torch.device("meta"):
        model = getattr(transformers, architecture)(config)
    for part in model.modules():
        for name, buffer in list(part.named_buffers(recurse=False)):
            if name in part._non_persistent_buffers_set:
                if name not in known:
                    raise CheckpointError(f"it has a buffer that is not known: {name}")
                with torch.device("cpu"):
                    part.register_buffer(name, known[name](buffer.shape), persistent=False)
    return model


def taken_out(model: nn.Module, path: str) -> nn.Module:
    """The part of this dotted path, which the model is without from now on."""
    parent, _, name = path.rpartition(".")
    holder = model.get_submodule(parent)
    part = holder.get_submodule(name)
    delattr(holder, name)
    return part


def canonical(model: Any) -> Callable[[str], str]:
    """From the name of a tensor in a file, which older versions of the library wrote, to that in the model.

    Raises CheckpointError where it is not the name alone that differs."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    mapping = get_model_conversion_mapping(model)
    renamings = [one for one in mapping if isinstance(one, WeightRenaming)]
    converters = [one for one in mapping if not isinstance(one, WeightRenaming)]

    def rename(stored: str) -> str:
        name, converted = rename_source_key(stored, renamings, converters)
        if converted is not None:
            raise CheckpointError(f"its weight {stored} is stored in a form that is not supported")
        return name

    return rename
