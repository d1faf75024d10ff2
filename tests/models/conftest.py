from __future__ import annotations

import json
import shutil

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
    folder = tmp_path_factory.mktemp("golden2")
    shutil.copytree(golden.BLIP2 / "checkpoints", folder / "checkpoints")
    old = folder / "checkpoints" / "t5_noimgtok"
    shutil.copytree(folder / "checkpoints" / "t5", old)
    config = json.loads((old / "config.json").read_text())
    del config["image_token_index"]
    (old / "config.json").write_text(json.dumps(config))
    catalog = golden.BLIP2_CATALOG.read_text().replace('"t5", ', '"t5", "t5-old", ')
    entry = '[models.t5-old]\nfamily = "blip2"\ncaption = { checkpoint = "checkpoints/t5_noimgtok" }\n'
    (folder / "catalog.toml").write_text(f"{catalog}\n{entry}")
    models = load("golden2", catalog=folder / "catalog.toml", device="cpu", dtype="fp32", threads=1)
    return {model.name: model for model in models}
