"""Base classes of the real runners: the unit, and a clear error for every op that it does not have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from models.base import Capabilities, Features, Generation, Input, InputError, Item, Localized, Scores


class UnitRunner(ABC):
    """A `ModelRunner`. Subclasses implement `prepare`, and the ops of the items that it makes."""

    def __init__(self, unit: str, capabilities: Capabilities | None = None) -> None:
        self.unit = unit
        self.capabilities = capabilities or Capabilities()

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

    def _unsupported(self, request: Input) -> InputError:
        return InputError(f"{self.unit} does not take {type(request).__name__}")
