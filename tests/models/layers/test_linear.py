"""Products on CPUs: packed weights change nothing; eight-bit ones change little, and a token's are its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.base import CaptionInput, Input, PairInput, QuestionInput, ServedModel, Task
from models.layers.linear import Int8Linear, PackedLinear, pack, saved_bytes, with_products
from models.layers.precision import Head
from models.loader import load
from models.weights import CheckpointError
from tests import golden
from tests.models import asking


def quantized(linear: nn.Linear) -> Int8Linear:
    (layer,) = with_products(nn.Sequential(linear), Int8Linear)
    assert isinstance(layer, Int8Linear)
    layer.load_state_dict(linear.state_dict())
    pack(layer)
    return layer


def test_heads_embeddings_and_norms_stay_exact() -> None:
    module = nn.Sequential(nn.Embedding(4, 4), nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)), Head(4, 4))
    with_products(module, Int8Linear)
    assert [type(part) for part in module.modules() if isinstance(part, nn.Linear)] == [Int8Linear, Head]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_products_change_little_and_weigh_a_byte_a_weight(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    linear, inputs = nn.Linear(64, 96, bias).to(dtype), torch.randn(2, 5, 64, dtype=dtype)
    waiting = with_products(nn.Sequential(nn.Linear(64, 96, bias).to(dtype)), Int8Linear)
    with torch.inference_mode():
        exact, outputs = linear(inputs), quantized(linear)(inputs)
    assert (outputs.dtype, outputs.shape) == (dtype, exact.shape)
    assert (outputs - exact).norm() < 0.025 * exact.norm()
    assert saved_bytes(waiting) == 64 * 96 * (dtype.itemsize - 1) - 12 * 96


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tokens", [1, 5, 40])
def test_packed_weights_make_the_same_products(dtype: torch.dtype, tolerance: float, bias: bool, tokens: int) -> None:
    torch.manual_seed(0)
    linear, inputs = nn.Linear(64, 96, bias).to(dtype), torch.randn(2, tokens, 64, dtype=dtype)
    (layer,) = with_products(nn.Sequential(linear), PackedLinear)
    assert isinstance(layer, PackedLinear)
    layer.load_state_dict(linear.state_dict())
    with torch.inference_mode():
        exact = layer(inputs)
        pack(layer)
        packed = layer(inputs)
    assert not layer.weight.numel()  # it was packed, and is not there twice
    assert packed.dtype == dtype
    torch.testing.assert_close(packed, exact, atol=tolerance, rtol=tolerance)


def test_a_head_is_exact_for_few_tokens_and_many() -> None:
    torch.manual_seed(0)
    head = Head(64, 1000)
    for tokens in (1, 3, 40):
        states = torch.randn(tokens, 64, dtype=torch.bfloat16)
        with torch.inference_mode():
            torch.testing.assert_close(head(states), states.float() @ head.weight.T + head.bias, atol=1e-5, rtol=1e-5)


def test_nothing_overflows_where_everything_is_largest() -> None:
    """Two products of the largest weights and activations are added in 16 bits on CPUs without VNNI."""
    linear = nn.Linear(256, 8, bias=False)
    nn.init.ones_(linear.weight)
    with torch.inference_mode():
        outputs = quantized(linear)(torch.tensor([[1.0], [-1.0]]).expand(2, 256))
    torch.testing.assert_close(outputs, torch.tensor([[256.0], [-256.0]]).expand(2, 8), rtol=1e-5, atol=0)


def tokens() -> Tensor:
    """Of very different sizes; one is zero."""
    torch.manual_seed(1)
    return torch.randn(6, 64) * torch.tensor([1.0, 1e-4, 1e4, 1.0, 0.0, 10.0])[:, None]


def test_a_token_is_quantised_by_itself() -> None:
    torch.manual_seed(0)
    layer, inputs = quantized(nn.Linear(64, 96)), tokens()
    with torch.inference_mode():
        together, alone = layer(inputs), torch.cat([layer(token[None]) for token in inputs])
    assert torch.equal(together, alone)
    assert torch.equal(together[4], layer.bias)


def test_what_is_not_finite_stays_so() -> None:
    layer, inputs = quantized(nn.Linear(8, 4)), torch.ones(2, 8)
    inputs[0, 3] = torch.nan
    with torch.inference_mode():
        outputs = layer(inputs)
    assert not outputs[0].isfinite().any()
    assert outputs[1].isfinite().all()


@pytest.fixture(scope="module")
def int8() -> ServedModel:
    (blip, _) = load("golden", catalog=golden.CATALOG, device="cpu", dtype="int8", threads=1)
    return blip


def test_a_model_in_int8_says_so_and_answers_in_batches_as_alone(int8: ServedModel) -> None:
    requests: dict[Task, Input] = {Task.CAPTION: CaptionInput(), Task.VQA: QuestionInput("what color is it?")}
    for task, request in requests.items():
        checkpoint = int8.checkpoints[task]
        assert checkpoint.dtype == "int8"
        items = [asking.item(checkpoint, image, request) for image in ("s0_ev0", "s1_ev1", "s3_china_160x120")]
        alone = [asking.generate(checkpoint, [item])[0] for item in items]
        for one, other in zip(asking.generate(checkpoint, items), alone, strict=True):
            assert one.sequences[0].text == other.sequences[0].text
            assert one.sequences[0].confidence == pytest.approx(other.sequences[0].confidence, abs=1e-5)


def test_scores_in_int8_stay_close(int8: ServedModel, served: dict[str, ServedModel]) -> None:
    logits = [
        asking.score(one, [asking.item(one, "s0_ev0", PairInput("a red circle"))])[0]
        for one in (int8.checkpoints[Task.MATCH], served["blip"].checkpoints[Task.MATCH])
    ]
    assert logits[0] == pytest.approx(logits[1], abs=0.15)


def test_int8_is_not_compiled() -> None:
    with pytest.raises(CheckpointError, match="int8 products cannot be compiled: start without BLIP_COMPILE"):
        load("golden", catalog=golden.CATALOG, device="cpu", dtype="int8", threads=1, compile_batches=1)


def test_int8_on_another_device_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.loader.choose_device", lambda _: torch.device("meta"))
    with pytest.raises(CheckpointError, match="int8 is for CPUs; on meta choose bf16 or fp16"):
        load("golden", catalog=golden.CATALOG, device="auto", dtype="int8", threads=1)
