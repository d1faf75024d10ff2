"""What every family provides: its key map and tower, with transformers as the reference for both, and its options."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast, get_args

import pytest
import torch
from torch import nn
from transformers import (
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    PreTrainedModel,
)

from models.base import ServedModel, Task
from models.catalog import FamilyName
from models.families import FAMILIES
from models.families.family import Networks
from models.layers.tower import Tower
from models.weights import Weights, save
from tests.golden import BLIP, BLIP2

CASES = [
    ("blip", Task.CAPTION, BLIP / "checkpoints" / "caption", BlipForConditionalGeneration),
    ("blip", Task.VQA, BLIP / "checkpoints" / "vqa", BlipForQuestionAnswering),
    ("blip", Task.MATCH, BLIP / "checkpoints" / "retrieval", BlipForImageTextRetrieval),
    ("blip2", Task.CAPTION, BLIP2 / "checkpoints" / "opt", Blip2ForConditionalGeneration),
    ("blip2", Task.CAPTION, BLIP2 / "checkpoints" / "t5", Blip2ForConditionalGeneration),
    ("blip2", Task.MATCH, BLIP2 / "checkpoints" / "itm", Blip2ForImageTextRetrieval),
]
CPU = torch.device("cpu")


class Case(NamedTuple):
    networks: Networks
    folder: Path
    reference: PreTrainedModel
    modules: tuple[Tower, nn.Module]  # without weights


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[2].name}")
def case(request: pytest.FixtureRequest) -> Case:
    family, task, folder, model_class = request.param
    networks, reference = FAMILIES[family].networks, model_class.from_pretrained(folder)
    with torch.device("meta"):
        modules = networks.build_tower(reference.config), networks.build(task, reference.config)
    return Case(networks, folder, reference, modules)


def test_the_catalog_knows_every_family() -> None:
    assert set(FAMILIES) == set(get_args(FamilyName))


def test_a_family_takes_a_template_where_its_runners_do(
    served: dict[str, ServedModel], served2: dict[str, ServedModel]
) -> None:
    models = {model.family: model for model in (served["blip"], served2["opt"])}
    for name, family in FAMILIES.items():
        assert family.takes_template is (
            name in models and models[name].checkpoints[Task.VQA].heads.capabilities.template
        )
    writing = {name for name, family in FAMILIES.items() if Task.VQA in family.networks.ARCHITECTURES}
    assert writing - {"vilt", "vilt-nlvr2"} == set(models)  # which choose among answers that they know


def test_the_key_map_names_every_weight_of_transformers(case: Case) -> None:
    ours = {
        name for module in case.modules for names in case.networks.hugging_face_names(module).values() for name in names
    }
    assert ours == {name for name, _ in case.reference.named_parameters()}


def test_image_embeddings_equal_those_of_transformers(case: Case) -> None:
    tower, network = case.modules
    for module in case.modules:
        Weights(case.folder, case.networks.TIED).load(module, case.networks.hugging_face_names(module), CPU)
    norm = cast("nn.LayerNorm", network.norm)
    case.reference.vision_model.post_layernorm.eps = norm.eps  # transformers' is not the authors'
    size = case.reference.config.vision_config.image_size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = case.reference.vision_model(pixels).last_hidden_state
        torch.testing.assert_close(norm(tower(pixels)), expected, atol=1e-5, rtol=0)


TIES = [
    ("blip", "text_decoder.bert.embeddings.word_embeddings.weight", "text_decoder.cls.predictions.decoder.weight"),
    ("blip2", "language_model.model.decoder.embed_tokens.weight", "language_model.lm_head.weight"),
    ("blip2", "language_model.shared.weight", "language_model.encoder.embed_tokens.weight"),
    ("blip2", "language_model.shared.weight", "language_model.decoder.embed_tokens.weight"),
]


@pytest.mark.parametrize(("family", "name", "other"), TIES)
def test_tied_weights_go_by_either_name(tmp_path: Path, family: FamilyName, name: str, other: str) -> None:
    save(tmp_path / "model.safetensors", {other: torch.ones(2)})
    assert Weights(tmp_path, FAMILIES[family].networks.TIED).read(name).tolist() == [1, 1]
