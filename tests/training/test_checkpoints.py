"""The shipped demo checkpoints are BLIP and BLIP-2 checkpoints like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import safe_open
from torch import Tensor

from training import vocabulary

DEMO = Path("models/checkpoints/demo")
BLIP2 = Path("models/checkpoints/demo-blip2")
BLIP2_CLASSES = {"generate": "Blip2ForConditionalGeneration", "match": "Blip2ForImageTextRetrieval"}
CLASSES = {
    "caption": "BlipForConditionalGeneration",
    "vqa": "BlipForQuestionAnswering",
    "match": "BlipForImageTextRetrieval",
}
MAX_BYTES = 12_000_000


def tensors(task: str, folder: Path = DEMO) -> dict[str, Tensor]:
    with safe_open(folder / task / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("task", CLASSES)
def test_the_library_loads_it_whole(task: str) -> None:
    architecture = getattr(transformers, CLASSES[task])
    model, report = architecture.from_pretrained(DEMO / task, output_loading_info=True, dtype=torch.float32)
    assert {problem: keys for problem, keys in report.items() if keys} == {}
    assert model.config.text_config.bos_token_id == vocabulary.SHAPES.dec_id
    assert model.config.text_config.vocab_size == vocabulary.SHAPES.enc_id + 1
    assert model.config.text_config.max_position_embeddings >= 300


def test_all_three_have_one_tower() -> None:
    caption, vqa, match = (tensors(task) for task in CLASSES)
    names = [name for name in caption if name.startswith("vision_model.")]
    assert len(names) == 4 + 4 * 12 + 2  # embeddings, blocks, final norm
    for name in names:
        assert torch.equal(caption[name], vqa[name])
        assert torch.equal(caption[name], match[name])


@pytest.mark.parametrize("task", BLIP2_CLASSES)
def test_the_library_loads_blip2_whole(task: str) -> None:
    architecture = getattr(transformers, BLIP2_CLASSES[task])
    _, report = architecture.from_pretrained(BLIP2 / task, output_loading_info=True, dtype=torch.float32)
    assert {problem: keys for problem, keys in report.items() if keys} == {}


@pytest.mark.parametrize("task", BLIP2_CLASSES)
def test_blip2_has_the_tower_of_blip(task: str) -> None:
    blip, blip2 = tensors("caption"), tensors(task, BLIP2)
    names = [name for name in blip if name.startswith("vision_model.") and "post_layernorm" not in name]
    assert len(names) == 4 + 4 * 12
    for name in names:
        assert torch.equal(blip[name], blip2[name])
    assert not torch.equal(blip["vision_model.post_layernorm.weight"], blip2["vision_model.post_layernorm.weight"])


@pytest.mark.parametrize(
    ("folder", "task"), [(DEMO, task) for task in CLASSES] + [(BLIP2, task) for task in BLIP2_CLASSES]
)
def test_weights_are_finite_halves(folder: Path, task: str) -> None:
    for name, tensor in tensors(task, folder).items():
        assert tensor.dtype == torch.float16, name
        assert tensor.isfinite().all(), name


@pytest.mark.parametrize("folder", [DEMO, BLIP2])
def test_they_are_small(folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= MAX_BYTES


@pytest.mark.parametrize("task", CLASSES)
def test_the_tokenizer_spells_everything_and_knows_no_decoder_token(task: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO / task)
    assert len(tokenizer) == vocabulary.SHAPES.dec_id
    assert "[UNK]" not in tokenizer.tokenize("The Quick brown fox jumped over 13 lazy dogs' tails; wasn't it great?")
    assert tokenizer("A picture of ").input_ids == vocabulary.SHAPES.encode("a picture of", vocabulary.CLS)
    assert tokenizer.sep_token_id == vocabulary.SEP
    assert json.loads((DEMO / task / "config.json").read_text())["text_config"]["sep_token_id"] == vocabulary.SEP


@pytest.mark.parametrize("folder", [DEMO, BLIP2])
def test_there_is_a_model_card(folder: Path) -> None:
    assert "not photos" in (folder / "README.md").read_text()
