from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from models import device
from models.base import ServedModel
from models.device import Instructions
from models.layers import kernels, linear
from models.loader import load
from tests import golden


@pytest.fixture(scope="session")
def served() -> dict[str, ServedModel]:
    """The golden checkpoints, loaded."""
    models = load("golden", catalog=golden.CATALOG, device="cpu", dtype="fp32", threads=1)
    return {model.name: model for model in models}


@pytest.fixture(scope="session")
def served2(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ServedModel]:
    """The golden checkpoints of BLIP-2, loaded; `t5-old` is T5 without an image token, which has the same weights."""
    catalog = golden.blip2_catalog(tmp_path_factory.mktemp("golden2"))
    models = load("golden2", catalog=catalog, device="cpu", dtype="fp32", threads=1)
    return {model.name: model for model in models}


@pytest.fixture
def cpu_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the code choose as on a CPU that has this and no more. The kernels are still those of this machine."""

    def become(*packed: torch.dtype, bf16: bool = False, vnni: bool = False) -> None:
        for module in (device, kernels, linear):
            monkeypatch.setattr(module, "instructions", lambda: Instructions(frozenset(packed), bf16, vnni))

    return become
