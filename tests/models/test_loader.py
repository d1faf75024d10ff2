"""Loading: towers held once, and every way in which a checkpoint can be wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import loader
from models.base import ServedModel, Task
from models.device import choose_dtype, free_bytes
from models.weights import CheckpointError
from tests import golden
from tests.models import asking
from tests.models.spoiling import Spoil, changed, complaint, corrupt, load, with_more_tokens, without

CHECKPOINTS = golden.BLIP / "checkpoints"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the captioning checkpoint, to be spoiled."""
    shutil.copytree(CHECKPOINTS / "caption", tmp_path / "caption")
    return tmp_path


CAPTION = 'caption = { checkpoint = "caption" }'


def test_a_served_model_has_the_tasks_of_its_checkpoints(served: dict[str, ServedModel]) -> None:
    assert set(served["blip"].checkpoints) == set(Task)
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


def test_only_the_big_products_are_in_half_precision(folder: Path) -> None:
    checkpoint = load(folder, CAPTION, dtype="bf16").checkpoints[Task.CAPTION]
    network = asking.network(checkpoint)
    assert network.decoder.layers[0].up.weight.dtype is torch.bfloat16
    for exact in (network.norm, network.head.transform, network.decoder.tokens, network.decoder.layers[0].norm):
        assert exact.weight.dtype is torch.float32
    assert asking.features(checkpoint, "s0_ev0").dtype is torch.bfloat16
    assert checkpoint.dtype == "bf16"


def test_auto_is_half_precision_only_where_the_device_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for capabilities, expected in (({"avx512_bf16": True}, torch.bfloat16), ({"avx2": True}, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=capabilities: has)
        assert choose_dtype("auto", torch.device("cpu")) is expected


def test_too_little_memory_stops_before_loading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_bytes(torch.device("cpu")) > 0
    monkeypatch.setattr(loader, "free_bytes", lambda _: 1_000)
    with pytest.raises(CheckpointError, match=r"the weights need 0\.0 GB on cpu"):
        load(folder, CAPTION)


def test_a_missing_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="cannot load the checkpoint nobody/nothing: "):
        load(tmp_path, 'caption = { checkpoint = "nobody/nothing" }')


WRONG = [
    (without("model.safetensors"), "no model.safetensors or pytorch_model.bin"),
    (corrupt("model.safetensors"), ""),
    (without("config.json"), "it has no config.json"),
    (corrupt("config.json"), ""),
    (changed("config.json", architectures=["Blip2Model"]), "caption needs BlipForConditionalGeneration"),
    (changed("config.json", text_config__hidden_act="relu"), "its activation is not BLIP's"),
    (changed("config.json", text_config__num_attention_heads=7), ""),
    (changed("config.json", text_config__bos_token_id=404), "[ENC] is 405"),
    (changed("config.json", text_config__sep_token_id=2), "the tokenizer (403 entries, [SEP] 6) is not the one"),
    (changed("preprocessor_config.json", size=96), "the preprocessor makes 96, the tower takes 64"),
    (corrupt("preprocessor_config.json"), ""),
    (without("tokenizer.json", "vocab.txt"), "it has no tokenizer.json and no vocab.txt"),
    (corrupt("tokenizer.json"), ""),
    (with_more_tokens, "the tokenizer (433 entries"),
]


@pytest.mark.parametrize(("spoil", "reason"), WRONG)
def test_a_wrong_checkpoint_is_one_line_that_names_it(folder: Path, spoil: Spoil, reason: str) -> None:
    spoil(folder / "caption")
    assert reason in complaint(folder, CAPTION, "caption")


def test_a_checkpoint_without_preprocessor_has_the_authors(folder: Path) -> None:
    expected = load(folder, CAPTION).checkpoints[Task.CAPTION].preprocessing
    (folder / "caption" / "preprocessor_config.json").unlink()
    assert load(folder, CAPTION).checkpoints[Task.CAPTION].preprocessing == expected


def test_the_epsilon_of_the_tower_is_the_authors(folder: Path) -> None:
    """The published configurations hold another one."""
    expected = asking.features(load(folder, CAPTION).checkpoints[Task.CAPTION], "s0_ev0")
    changed("config.json", vision_config__layer_norm_eps=1e-5)(folder / "caption")
    assert torch.equal(asking.features(load(folder, CAPTION).checkpoints[Task.CAPTION], "s0_ev0"), expected)


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
