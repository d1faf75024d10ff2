"""Loading BLIP: its dtypes, and every way in which a checkpoint can be wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from models.base import Task
from tests import golden
from tests.models import asking
from tests.models.spoiling import Spoil, changed, complaint, corrupt, load, with_more_tokens, without

CHECKPOINTS = golden.BLIP / "checkpoints"
CAPTION = 'caption = { checkpoint = "caption" }'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the captioning checkpoint, to be spoiled."""
    shutil.copytree(CHECKPOINTS / "caption", tmp_path / "caption")
    return tmp_path


def test_only_the_big_products_are_in_half_precision(folder: Path) -> None:
    checkpoint = load(folder, CAPTION, dtype="bf16").checkpoints[Task.CAPTION]
    network = asking.network(checkpoint)
    assert network.decoder.layers[0].up.weight.dtype is torch.bfloat16
    for exact in (network.norm, network.head.transform, network.decoder.tokens, network.decoder.layers[0].norm):
        assert exact.weight.dtype is torch.float32
    assert asking.features(checkpoint, "s0_ev0").dtype is torch.bfloat16
    assert checkpoint.dtype == "bf16"


def test_the_epsilon_of_the_tower_is_the_authors(folder: Path) -> None:
    """The published configurations hold another one."""
    expected = asking.features(load(folder, CAPTION).checkpoints[Task.CAPTION], "s0_ev0")
    changed("config.json", vision_config__layer_norm_eps=1e-5)(folder / "caption")
    assert torch.equal(asking.features(load(folder, CAPTION).checkpoints[Task.CAPTION], "s0_ev0"), expected)


def test_a_checkpoint_without_preprocessor_has_the_authors(folder: Path) -> None:
    expected = load(folder, CAPTION).checkpoints[Task.CAPTION].preprocessing
    (folder / "caption" / "preprocessor_config.json").unlink()
    assert load(folder, CAPTION).checkpoints[Task.CAPTION].preprocessing == expected


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
