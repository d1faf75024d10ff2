from __future__ import annotations

import pytest

from models.base import ServedModel
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
