"""What a family provides, so that all families are planned and loaded by the same code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from models.base import ModelRunner, Task
from models.inputs import Preprocessing
from models.layers.precision import Served
from models.layers.tower import Tower
from models.weights import Names, Tied


class Networks(Protocol):
    """A checkpoint's tower and its network, which is the rest of it. A module such as `blip.networks` will do.

    `config` is always an instance of `CONFIG`. Modules are built in float32 and without weights."""

    CONFIG: Any  # the configuration class in transformers
    ARCHITECTURES: dict[Task, str]  # the architecture in config.json that each task needs
    TIED: Tied

    def check(self, task: Task, config: Any, /) -> None:
        """Raises CheckpointError if the configuration asks for something that is not implemented."""

    def preprocessing(self, processor: Mapping[str, Any], config: Any, /) -> Preprocessing:
        """How pictures become the tower's pixels. `processor`: the content of preprocessor_config.json; empty: there
        is no such file. Raises CheckpointError if it does not fit the tower."""

    def build_tower(self, config: Any, /) -> Tower: ...

    def build(self, task: Task, config: Any, /) -> nn.Module:
        """The network of a checkpoint for `task`."""

    def set_dtypes(self, module: nn.Module, dtype: torch.dtype, /) -> None:
        """Convert the parameters of a tower or network, in place; `dtype` is the serving dtype."""

    def quantizable(self, network: nn.Module, /) -> nn.Module | None:
        """The part of the network whose big matrix products may run in int8."""

    def language_model_of(self, network: nn.Module, /) -> Served | None:
        """The pretrained language model in the network, if it has one: prompts are for it, and it can be quantised."""

    def hugging_face_names(self, module: nn.Module, /) -> Names:
        """Of a tower or network."""


@dataclass(frozen=True, slots=True, eq=False)
class RunnerParts:
    """What the runner of a loaded checkpoint is made from."""

    task: Task
    unit: str
    network: Any  # as the family built it
    folder: Path  # with the tokenizer's files
    config: Any
    device: torch.device
    max_prompt_tokens: int | None = None  # longer prompts of a language model are cut; None: never


class MakeRunner(Protocol):
    def __call__(self, parts: RunnerParts, /) -> ModelRunner:
        """Raises CheckpointError if the tokenizer belongs to another checkpoint."""


@dataclass(frozen=True, slots=True)
class Family:
    """What each family's folder hands out as FAMILY."""

    networks: Networks
    make_runner: MakeRunner
    takes_template: bool  # whether questions are put into a template, which an operator may replace
    # Of a configuration: from the name of a tensor in a file to its Hugging Face name, where files of several ages have
    # others. None: all files have the same names.
    canonical: Callable[[Any], Callable[[str], str]] | None = None
    files: tuple[str, ...] = ()  # of a hub repository, beside JSON, texts and weights
