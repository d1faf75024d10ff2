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
