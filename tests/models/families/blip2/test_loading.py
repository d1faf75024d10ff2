"""Loading BLIP-2: its dtypes, and every way in which a checkpoint can be wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.base import Checkpoint, Task
from models.inputs import QuestionInput
from models.weights import CheckpointError
from tests import golden
from tests.models import asking, spoiling
from tests.models.spoiling import Spoil, changed, corrupt, with_more_tokens, without

CHECKPOINTS = golden.BLIP2 / "checkpoints"
CAPTION = 'caption = { checkpoint = "opt" }\n'
VQA = 'vqa = { checkpoint = "opt" }\n'
MATCH = 'match = { checkpoint = "itm" }\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Copies of the checkpoints, to be spoiled."""
    for name in ("opt", "t5", "itm"):
        shutil.copytree(CHECKPOINTS / name, tmp_path / name)
    return tmp_path


def load(folder: Path, entries: str, dtype: str = "fp32") -> dict[Task, Checkpoint]:
    return dict(spoiling.load(folder, entries, dtype, "blip2").checkpoints)


def test_only_tower_and_language_model_are_in_half_precision(folder: Path) -> None:
    checkpoints = load(folder, CAPTION + MATCH, dtype="bf16")
    network = asking.network(checkpoints[Task.CAPTION])
    assert network.language_model.layers[0].up.weight.dtype is torch.bfloat16
    exact = [network.norm, network.qformer, network.projection, asking.network(checkpoints[Task.MATCH])]
    exact += [network.language_model.tokens, network.language_model.positions, network.language_model.norm]
    assert {value.dtype for module in exact for value in module.parameters()} == {torch.float32}
    assert checkpoints[Task.CAPTION].dtype == checkpoints[Task.MATCH].dtype == "bf16"
    assert asking.features(checkpoints[Task.MATCH], "evqa_a").dtype is torch.bfloat16


def test_t5_is_never_in_float16(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where activations would be."""
    monkeypatch.setattr("models.checkpoint.has_fbgemm_fp16", lambda: False)
    checkpoint = load(folder, 'caption = { checkpoint = "t5" }', dtype="fp16")[Task.CAPTION]
    model = asking.network(checkpoint).language_model
    assert model.encoder.layers[0].feed_forward.gate_up.weight.dtype is torch.bfloat16
    assert model.head.weight.dtype is torch.float32
    assert asking.features(checkpoint, "evqa_a").dtype is torch.float16
    assert checkpoint.dtype == "fp16+bf16"


def test_int8_weights_answer_as_the_exact_ones(folder: Path) -> None:
    exact = load(folder, VQA)[Task.VQA]
    quantized = load(folder, 'vqa = { checkpoint = "opt", quantize = "int8" }')[Task.VQA]
    question = QuestionInput("what color is the shape?")
    (one,), (other,) = (
        asking.generate(checkpoint, [asking.item(checkpoint, "evqa_a", question)]) for checkpoint in (exact, quantized)
    )
    assert one.sequences[0].text == other.sequences[0].text
    assert one.sequences[0].confidence == pytest.approx(other.sequences[0].confidence, abs=0.05)
    assert (exact.dtype, quantized.dtype) == ("fp32", "fp32+int8")


def test_a_tower_that_overflows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.checkpoint.has_fbgemm_fp16", lambda: False)
    tensors = load_file(folder / "opt" / "model.safetensors")
    tensors["vision_model.encoder.layers.0.mlp.fc1.weight"].fill_(6e4)
    save_file(tensors, folder / "opt" / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{folder / 'opt'}: it computes NaN or infinity in fp16"):
        load(folder, CAPTION, dtype="fp16")


def missing(weight: str) -> Spoil:
    def remove(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        del tensors[weight]
        save_file(tensors, folder / "model.safetensors")

    return remove


def tokenizer_of(other: str) -> Spoil:
    def replace(folder: Path) -> None:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(CHECKPOINTS / other / file, folder / file)

    return replace


WRONG: list[tuple[str, Spoil, str]] = [
    ("opt", without("config.json"), "it has no config.json"),
    ("opt", without("model.safetensors"), "no model.safetensors or pytorch_model.bin"),
    ("opt", corrupt("model.safetensors"), ""),
    ("opt", changed("config.json", architectures=["Blip2Model"]), "caption needs Blip2ForConditionalGeneration"),
    ("itm", changed("config.json", architectures=None), "match needs Blip2ForImageTextRetrieval"),
    ("opt", changed("config.json", vision_config__hidden_act="quick_gelu"), "its vision_config has hidden_act"),
    ("opt", changed("config.json", vision_config__qkv_bias=False), "its vision_config has qkv_bias False"),
    ("itm", changed("config.json", qformer_config__hidden_act="relu"), "its qformer_config has hidden_act 'relu'"),
    ("itm", changed("config.json", qformer_config__use_qformer_text_input=False), "use_qformer_text_input False"),
    ("opt", changed("config.json", text_config__activation_function="gelu"), "BLIP-2's is 'relu'"),
    ("opt", changed("config.json", text_config__do_layer_norm_before=False), "do_layer_norm_before False"),
    (
        "opt",
        changed("config.json", text_config__model_type="llama"),
        "its language model is llama, not one of: opt, t5",
    ),
    ("t5", changed("config.json", text_config__dense_act_fn="gelu_new"), "its text_config has dense_act_fn 'gelu_new'"),
    ("t5", changed("config.json", text_config__scale_decoder_outputs=True), "scale_decoder_outputs True"),
    ("opt", changed("config.json", num_query_tokens=9), "query_tokens has shape (1, 8, 64)"),
    ("opt", changed("config.json", vision_config__num_hidden_layers=4), "has no weight vision_model.encoder.layers.3"),
    ("opt", missing("vision_model.embeddings.class_embedding"), "has no weight vision_model.embeddings.class_emb"),
    ("t5", missing("language_model.lm_head.weight"), "has no weight language_model.lm_head.weight"),
    ("itm", missing("itm_head.weight"), "has no weight itm_head.weight"),
    ("opt", changed("preprocessor_config.json", size=96), "the preprocessor makes 96, the tower takes 64 pixels"),
    ("opt", changed("config.json", text_config__eos_token_id=50_118), "the stop token is 50118"),
    ("opt", with_more_tokens, "the tokenizer has 531 entries, the vocabulary 512"),
    ("itm", with_more_tokens, "the tokenizer has 432 entries, the vocabulary 402"),
    ("t5", tokenizer_of("opt"), "the tokenizer has 501 entries, the vocabulary 256"),
    ("opt", corrupt("tokenizer.json"), ""),
    ("opt", without("tokenizer.json", "vocab.json"), ""),
    ("t5", without("tokenizer.json", "spiece.model"), ""),
    ("itm", without("tokenizer.json", "vocab.txt"), "it has no tokenizer.json and no vocab.txt"),
]


@pytest.mark.parametrize(("name", "spoil", "reason"), WRONG)
def test_a_wrong_checkpoint_is_one_line_that_names_it(folder: Path, name: str, spoil: Spoil, reason: str) -> None:
    spoil(folder / name)
    slot = "match" if name == "itm" else "caption"
    assert reason in spoiling.complaint(folder, f'{slot} = {{ checkpoint = "{name}" }}', name, "blip2")


def test_a_checkpoint_for_one_task_is_wrong_for_another(folder: Path) -> None:
    reason = spoiling.complaint(folder, CAPTION + 'match = { checkpoint = "opt" }', "opt", "blip2")
    assert "match needs Blip2ForImageTextRetrieval" in reason
