"""The families: what the loader must know of each, so that it is the same for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from models.base import ModelRunner, Task
from models.families.blip import networks as blip
from models.families.blip import runners as blip_runners
from models.families.blip2 import networks as blip2
from models.families.blip2 import runners as blip2_runners
from models.layers.precision import Served
from models.layers.vit import ViTConfig


class Networks(Protocol):
    """A module with a family's networks, such as `models.blip`."""

    CONFIG: Any  # the configuration's class in transformers
    ARCHITECTURES: dict[Task, str]  # what a checkpoint for a task must be, in Hugging Face's words

    def check(self, task: Task, config: Any, /) -> None:
        """Raises CheckpointError if the networks would not compute what the configuration says."""

    def vision_config(self, config: Any, /) -> ViTConfig: ...

    def build(self, task: Task, config: Any, /) -> nn.Module:
        """The network of a checkpoint for `task`: all of it but the tower. Without weights."""

    def set_dtypes(self, network: nn.Module, dtype: torch.dtype, /) -> None:
        """Give every parameter its dtype, where the serving dtype is `dtype`."""

    def quantizable(self, network: nn.Module, /) -> nn.Module | None:
        """The part whose big matrix products may be int8."""

    def language_model_of(self, network: nn.Module, /) -> Served | None:
        """The part that is a language model of its own, if there is one: it reads prompts and can be quantised."""

    def hugging_face_names(self, module: nn.Module, /) -> dict[str, str]:
        """Our parameter name -> Hugging Face name, for a network or a tower."""


@dataclass(frozen=True, slots=True)
class Family:
    networks: Networks
    # (task, unit, network, folder, configuration, device, **options of a language model) -> the checkpoint's heads.
    # Raises CheckpointError if the tokenizer is another checkpoint's.
    make_runner: Callable[..., ModelRunner]


FAMILIES = {
    "blip": Family(blip, blip_runners.make_runner),
    "blip2": Family(blip2, blip2_runners.make_runner),
}
