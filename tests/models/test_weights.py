"""The key map and the reading of weights, with transformers as the reference for both."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    PreTrainedModel,
)

from models import blip
from models.base import Task
from models.vit import ViT
from models.weights import CheckpointError, Weights, save, tensor_digest

SLOTS = {Task.CAPTION: "caption", Task.VQA: "vqa", Task.MATCH: "retrieval"}
CLASSES = {
    Task.CAPTION: BlipForConditionalGeneration,
    Task.VQA: BlipForQuestionAnswering,
    Task.MATCH: BlipForImageTextRetrieval,
}
CHECKPOINTS = Path(__file__).parents[1] / "golden" / "blip" / "checkpoints"


@pytest.fixture(scope="module", params=SLOTS)
def pair(request: pytest.FixtureRequest) -> tuple[Task, PreTrainedModel]:
    return request.param, CLASSES[request.param].from_pretrained(CHECKPOINTS / SLOTS[request.param])


def test_the_key_map_names_every_weight_of_transformers(pair: tuple[Task, PreTrainedModel]) -> None:
    task, reference = pair
    modules = (ViT(blip.vision_config(reference.config)), blip.build(task, reference.config))
    ours = {name for module in modules for name in blip.hugging_face_names(module).values()}
    assert ours == {name for name, _ in reference.named_parameters()}


def test_image_embeddings_equal_those_of_transformers(pair: tuple[Task, PreTrainedModel]) -> None:
    task, reference = pair
    weights, cpu = Weights(CHECKPOINTS / SLOTS[task]), torch.device("cpu")
    with torch.device("meta"):
        tower, network = ViT(blip.vision_config(reference.config)), blip.build(task, reference.config)
    for module in (tower, network):
        weights.load(module, blip.hugging_face_names(module), cpu)
    size = tower.config.image_size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = reference.vision_model(pixels).last_hidden_state
        torch.testing.assert_close(network.norm(tower(pixels)), expected, atol=1e-5, rtol=0)  # type: ignore[operator]


def small() -> torch.nn.Linear:
    return torch.nn.Linear(2, 3, device="meta")


NAMES = {"weight": "w", "bias": "b"}


def test_weights_go_straight_into_their_dtype(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", {"w": torch.ones(3, 2, dtype=torch.float16), "b": torch.zeros(3)})
    module = small().to(torch.bfloat16)
    Weights(tmp_path).load(module, NAMES, torch.device("cpu"))
    assert module.weight.dtype is torch.bfloat16
    assert module.weight.tolist() == [[1, 1]] * 3
    assert not module.weight.requires_grad


def test_a_checkpoint_of_several_files(tmp_path: Path) -> None:
    save(tmp_path / "one.safetensors", {"w": torch.ones(3, 2)})
    save(tmp_path / "two.safetensors", {"b": torch.zeros(3)})
    index = '{"weight_map": {"w": "one.safetensors", "b": "two.safetensors"}}'
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert Weights(tmp_path).read("b").tolist() == [0, 0, 0]


def test_a_pickled_checkpoint_is_read_as_weights_only(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3, 2), "b": torch.zeros(3)}, tmp_path / "pytorch_model.bin")
    assert Weights(tmp_path).read("w").sum() == 6
    torch.save({"w": Path("code")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UnpicklingError, match="Weights only load failed"):
        Weights(tmp_path)


def test_tied_weights_go_by_either_name(tmp_path: Path) -> None:
    tensors = load_file(CHECKPOINTS / "caption" / "model.safetensors")
    tensors["text_decoder.cls.predictions.decoder.weight"] = tensors.pop(
        "text_decoder.bert.embeddings.word_embeddings.weight"
    )
    save_file(tensors, tmp_path / "model.safetensors")
    config = BlipConfig.from_pretrained(CHECKPOINTS / "caption")
    with torch.device("meta"):
        network = blip.CaptionNet(blip.vision_config(config), blip.text_config(config))
    Weights(tmp_path).load(network, blip.hugging_face_names(network), torch.device("cpu"))
    assert torch.equal(network.decoder.tokens.weight, tensors["text_decoder.cls.predictions.decoder.weight"])


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [({"w": torch.ones(3, 2)}, "no weight b"), ({"w": torch.ones(2, 3), "b": torch.zeros(3)}, r"shape \(2, 3\)")],
)
def test_a_wrong_checkpoint_is_one_clear_line(tmp_path: Path, tensors: dict[str, torch.Tensor], complaint: str) -> None:
    save(tmp_path / "model.safetensors", tensors)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        Weights(tmp_path).load(small(), NAMES, torch.device("cpu"))
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model"):
        Weights(tmp_path)


def test_a_digest_tells_values_dtypes_and_configurations_apart() -> None:
    module = torch.nn.Linear(2, 2)
    same, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    same.load_state_dict(module.state_dict())
    assert tensor_digest(module, "a") == tensor_digest(same, "a") != tensor_digest(other, "a")
    assert tensor_digest(same, "a") != tensor_digest(same, "b")
    assert tensor_digest(same, "a") != tensor_digest(same.to(torch.bfloat16), "a")
