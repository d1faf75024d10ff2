"""Loading a profile: towers held once, memory, warm-up, and what stops the start."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import loader
from models.base import ServedModel, Task
from models.catalog import CatalogError
from models.device import free_bytes
from models.weights import CheckpointError
from tests import golden
from tests.models.spoiling import load

CHECKPOINTS = golden.BLIP / "checkpoints"
CAPTION = 'caption = { checkpoint = "caption" }'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the captioning checkpoint, to be spoiled."""
    shutil.copytree(CHECKPOINTS / "caption", tmp_path / "caption")
    return tmp_path


def test_a_served_model_has_the_tasks_of_its_checkpoints(served: dict[str, ServedModel]) -> None:
    assert set(served["blip"].checkpoints) == set(Task) - {Task.SEGMENT, Task.DETECT}
    assert set(served["wide"].checkpoints) == {Task.CAPTION}
    assert served["blip"].checkpoints[Task.MATCH] is served["blip"].checkpoints[Task.EMBED]


def test_different_towers_are_apart(served: dict[str, ServedModel]) -> None:
    towers = {id(checkpoint.tower) for model in served.values() for checkpoint in model.checkpoints.values()}
    assert len(towers) == 4


def test_equal_towers_are_held_once(tmp_path: Path) -> None:
    for name in ("caption", "retrieval"):
        shutil.copytree(CHECKPOINTS / name, tmp_path / name)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("caption", "retrieval"))
    tower = {name: tensor for name, tensor in theirs.items() if name.startswith("vision_model.") and "post" not in name}
    save_file(ours | tower, tmp_path / "caption" / "model.safetensors")
    model = load(tmp_path, CAPTION + '\nmatch = { checkpoint = "retrieval" }')
    assert model.checkpoints[Task.CAPTION].tower is model.checkpoints[Task.MATCH].tower


def test_fp32_is_not_tf32(folder: Path) -> None:
    """Of cuDNN's convolutions, such as that of the patches. Products are exact unless somebody says otherwise."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    convolutions.fp32_precision = "tf32"
    load(folder, CAPTION)
    assert convolutions.fp32_precision == "ieee"
    assert torch.get_float32_matmul_precision() == "highest"


def test_too_little_memory_stops_before_loading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_bytes(torch.device("cpu")) > 0
    monkeypatch.setattr(loader, "free_bytes", lambda _: 1_000)
    with pytest.raises(CheckpointError, match=r"the weights need 0\.0 GB on cpu"):
        load(folder, CAPTION)


def test_a_missing_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="cannot load the checkpoint nobody/nothing: "):
        load(tmp_path, 'caption = { checkpoint = "nobody/nothing" }')


def test_weights_that_are_not_numbers(folder: Path) -> None:
    tensors = load_file(folder / "caption" / "model.safetensors")
    tensors["vision_model.post_layernorm.bias"].fill_(float("nan"))
    save_file(tensors, folder / "caption" / "model.safetensors")
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        load(folder, CAPTION)


def test_the_stored_answer_is_checked(folder: Path) -> None:
    shutil.copy(golden.image_file("s0_ev0"), folder / "picture.png")
    sanity = '\nsanity = { image = "picture.png", caption = "%s" }'
    right = "not a triangle but a triangle at the bottom right"
    assert Task.CAPTION in load(folder, CAPTION + sanity % right).checkpoints
    with pytest.raises(CheckpointError, match=f"captions picture.png as '{right}', not 'an elephant'"):
        load(folder, CAPTION + sanity % "an elephant")


def test_units_of_the_same_name_are_told_apart(folder: Path) -> None:
    shutil.copytree(folder / "caption", folder / "other" / folder.name / "caption")
    other = f'caption = {{ checkpoint = "other/{folder.name}/caption" }}'
    (folder / "catalog.toml").write_text(
        f'[profiles]\nmine = ["a", "b"]\n[models.a]\nfamily = "blip"\n{CAPTION}\n[models.b]\nfamily = "blip"\n{other}\n'
    )
    models = loader.load("mine", catalog=folder / "catalog.toml", device="cpu", dtype="fp32", threads=1)
    assert len({model.checkpoints[Task.CAPTION].heads.unit for model in models}) == 2
    assert len({model.checkpoints[Task.CAPTION].tower.unit for model in models}) == 1


def test_both_families_in_one_profile(folder: Path) -> None:
    shutil.copytree(golden.BLIP2 / "checkpoints" / "opt", folder / "opt")
    (folder / "catalog.toml").write_text(
        '[profiles]\nmine = ["a", "b"]\n[models.a]\nfamily = "blip"\ncaption = { checkpoint = "caption" }\n'
        '[models.b]\nfamily = "blip2"\ntemplate = "{}?"\nvqa = { checkpoint = "opt" }'
    )
    models = loader.load("mine", catalog=folder / "catalog.toml", device="cpu", dtype="fp32", threads=1)
    assert [(model.family, model.template) for model in models] == [("blip", None), ("blip2", "{}?")]
    assert len({checkpoint.tower for model in models for checkpoint in model.checkpoints.values()}) == 2


@pytest.mark.parametrize(
    "read", [loader.fetch_profile, partial(loader.load, device="cpu", dtype="fp32", threads=1)], ids=["fetch", "load"]
)
def test_a_template_for_a_family_without_one_is_one_clear_line(tmp_path: Path, read: Callable[..., object]) -> None:
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(
        '[profiles]\nmine = ["mine"]\n[models.mine]\nfamily = "blip"\nvqa = { checkpoint = "a/x" }\ntemplate = "{}?"\n'
    )
    with pytest.raises(CatalogError, match=r"wrong at models\.mine: template is not for blip, whose questions"):
        read("mine", catalog=catalog)
