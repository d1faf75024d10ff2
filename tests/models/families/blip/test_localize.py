"""Where in a picture a text is: against LAVIS' own compute_gradcam, and promise 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from models.base import Checkpoint, InputError, Item, ServedModel, Task
from models.families.blip.runners import MatchRunner, SpecialTokens
from models.inputs import LocalizeInput, PairInput
from models.loader import load
from models.outputs import Localized, Scores
from tests import golden
from tests.models import asking

GRADCAM = load_file(golden.BLIP / "gradcam.safetensors")
CASES = list(enumerate(golden.cases("itm")))
LAYERS = (0, 1)  # of three
TEXTS = ("red", "a small gray triangle", "there is a blue circle , and it is near the bottom left of the picture")
MIXED = [("s0_ev0", TEXTS[2]), ("s1_ev1", TEXTS[0]), ("s0_ev0", TEXTS[1]), ("s3_china_160x120", TEXTS[1])]


@pytest.fixture(scope="module")
def checkpoint(served: dict[str, ServedModel]) -> Checkpoint:
    return served["blip"].checkpoints[Task.LOCALIZE]


def localize(checkpoint: Checkpoint, items: list[Item]) -> list[Localized]:
    return checkpoint.heads.localize(items)


def alone(checkpoint: Checkpoint, image: str, text: str, layer: int | None = None) -> Localized:
    return localize(checkpoint, [asking.item(checkpoint, image, LocalizeInput(text, layer))])[0]


def assert_equal(ours: Localized, expected: Localized, tolerance: float) -> None:
    """`tolerance`: of the hottest patch; of logits, absolute."""
    assert ours.tokens == expected.tokens
    np.testing.assert_allclose(ours.maps, expected.maps, rtol=0, atol=tolerance * float(expected.maps.max()))
    np.testing.assert_allclose(ours.logits, expected.logits, rtol=0, atol=tolerance)


# --- as the authors computed it ---


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("number", "case"), CASES, ids=lambda one: one if isinstance(one, int) else "")
def test_what_lavis_computes(checkpoint: Checkpoint, number: int, case: dict[str, Any], layer: int) -> None:
    mean, *tokens = GRADCAM[f"itm.{number}.layer.{layer}"]
    ours = alone(checkpoint, case["image"], case["text"], layer)
    hottest = float(np.max(tokens))
    assert hottest > 1e-5
    assert ours.maps == pytest.approx(np.array(tokens), abs=2e-4 * hottest)
    assert ours.maps.mean(0) == pytest.approx(mean, abs=2e-4 * hottest)
    assert ours.logits == pytest.approx(case["enc_logits"], abs=1e-4)


def test_layers_tell_apart(checkpoint: Checkpoint) -> None:
    """Or the tolerance above would prove nothing."""
    first, second = (alone(checkpoint, *MIXED[0], layer).maps for layer in LAYERS)
    assert np.abs(first - second).max() > 0.1 * first.max()


@pytest.mark.parametrize(("depth", "default"), [(2, 0), (3, 0), (6, 2), (12, 6), (24, 13)])
def test_the_default_is_the_seventh_of_twelve(checkpoint: Checkpoint, depth: int, default: int) -> None:
    heads = as_deep(checkpoint, depth)
    assert heads.capabilities.localizing is not None
    assert (heads.capabilities.localizing.num_layers, heads.capabilities.localizing.default) == (depth, default)
    assert heads.prepare(LocalizeInput("red")).key == default


def as_deep(checkpoint: Checkpoint, depth: int) -> MatchRunner:
    """A runner whose network says that it has so many layers."""
    real: Any = checkpoint.heads
    network = torch.nn.Module()
    network.encoder = torch.nn.Module()
    network.encoder.config = replace(real.network.encoder.config, num_layers=depth)
    network.text_projection = real.network.text_projection
    return MatchRunner("deep", network, real._tokenizer, SpecialTokens(403, 404), torch.device("cpu"))


# --- promise 1 ---


def test_a_batch_equals_each_alone(checkpoint: Checkpoint) -> None:
    """Texts of several lengths, two of them about one image."""
    items = [asking.item(checkpoint, image, LocalizeInput(text)) for image, text in MIXED]
    assert len({item.key for item in items}) == 1
    together = localize(checkpoint, items)
    for ours, pair in zip(together, MIXED, strict=True):
        assert_equal(ours, alone(checkpoint, *pair), 1e-4)
        assert len(ours.tokens) == len(ours.maps)
    with pytest.raises(AssertionError):  # the control: another picture's is not within the tolerance
        assert_equal(together[2], alone(checkpoint, *MIXED[3]), 1e-4)


def test_padding_would_be_seen(checkpoint: Checkpoint) -> None:
    """The control of the masks: tokens that are looked at change the heat of the others."""
    item = asking.item(checkpoint, "s0_ev0", LocalizeInput("red"))
    [ours], [padded] = localize(checkpoint, [item]), localize(checkpoint, [replace(item, payload=[*item.payload, 0])])
    assert np.abs(padded.maps[:1] - ours.maps).max() > 1e-3 * ours.maps.max()


def test_features_stay_as_they_are(checkpoint: Checkpoint) -> None:
    """They come from inference mode and are shared with other requests, which go on."""
    features: Any = asking.features(checkpoint, "s0_ev0")
    before = features.clone()
    alone(checkpoint, *MIXED[0])
    assert features.is_inference()
    assert torch.equal(features, before)
    pair = asking.item(checkpoint, "s0_ev0", PairInput(TEXTS[2]))
    assert asking.score(checkpoint, [pair])[0] == pytest.approx(alone(checkpoint, *MIXED[0]).logits, abs=1e-4)


def test_nothing_is_left_to_differentiate(checkpoint: Checkpoint) -> None:
    alone(checkpoint, *MIXED[0])
    assert all(not one.requires_grad and one.grad is None for one in asking.network(checkpoint).parameters())


# --- dtypes ---


@pytest.fixture(scope="module", params=["bf16", "fp32"])
def typed(request: pytest.FixtureRequest) -> Checkpoint:
    (model, _) = load("golden", catalog=golden.CATALOG, device="cpu", dtype=request.param, threads=1)
    return model.checkpoints[Task.LOCALIZE]


def cosine(one: Scores, other: Scores) -> float:
    return float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))


def test_dtypes_agree(typed: Checkpoint, checkpoint: Checkpoint) -> None:
    for image, text in MIXED:
        ours, exact = (alone(one, image, text) for one in (typed, checkpoint))
        assert {ours.maps.dtype, ours.logits.dtype} == {np.dtype(np.float32)}
        assert cosine(ours.maps, exact.maps) > 0.998  # where it is hot; how hot differs by up to a sixth in bf16
        assert cosine(ours.maps, exact.maps.transpose(0, 2, 1)) < 0.99  # the control


def test_weights_that_are_not_packed(cpu_with: Callable[..., None], checkpoint: Checkpoint) -> None:
    cpu_with()
    (model, _) = load("golden", catalog=golden.CATALOG, device="cpu", dtype="fp32", threads=1)
    plain = model.checkpoints[Task.LOCALIZE]
    assert next(iter(asking.network(plain).encoder.layers)).up.weight.numel()
    for image, text in MIXED:
        assert_equal(alone(plain, image, text), alone(checkpoint, image, text), 1e-4)


# --- what is refused ---


@pytest.mark.parametrize("layer", [2, 3, 10**30])
def test_the_last_layer_and_those_beyond(checkpoint: Checkpoint, layer: int) -> None:
    with pytest.raises(InputError, match="layer: must be 0 to 1 of 3: the last one has no gradient"):
        checkpoint.heads.prepare(LocalizeInput("red", layer))


def test_the_last_layer_has_no_gradient(checkpoint: Checkpoint) -> None:
    """Which is why: the logit is read from [ENC], whose last attention is left out with it."""
    item = asking.item(checkpoint, "s0_ev0", LocalizeInput("red"))
    [localized] = localize(checkpoint, [replace(item, key=2)])
    assert not localized.maps.any()


def test_a_text_is_cut_as_the_authors_do(checkpoint: Checkpoint) -> None:
    assert len(alone(checkpoint, "s0_ev0", "red " * 100).tokens) == 33


def test_a_text_that_the_model_cannot_read(checkpoint: Checkpoint) -> None:
    with pytest.raises(InputError, match="text: has no character that the model reads"):
        checkpoint.heads.prepare(LocalizeInput("\u200b"))


def test_int8_is_refused_and_says_why() -> None:
    (model, _) = load("golden", catalog=golden.CATALOG, device="cpu", dtype="int8", threads=1)
    assert Task.LOCALIZE not in model.checkpoints
    assert "int8 have no gradient" in model.checkpoints[Task.MATCH].heads.capabilities.lacks[Task.LOCALIZE]


def test_one_layer_is_refused_and_says_why(checkpoint: Checkpoint) -> None:
    heads = as_deep(checkpoint, 1)
    assert heads.capabilities.localizing is None
    assert "one layer" in heads.capabilities.lacks[Task.LOCALIZE]
    with pytest.raises(InputError):
        heads.prepare(LocalizeInput("red"))


def test_blip2_is_refused_and_says_why(served2: dict[str, ServedModel]) -> None:
    model = served2["opt"]
    assert Task.LOCALIZE not in model.checkpoints
    assert "no method" in model.checkpoints[Task.MATCH].heads.capabilities.lacks[Task.LOCALIZE]
