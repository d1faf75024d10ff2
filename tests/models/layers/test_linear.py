"""Products on CPUs: packed weights change nothing; eight-bit ones change little, and a token's are its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import CaptionInput, Input, PairInput, QuestionInput, ServedModel, Task
from models.device import instructions
from models.layers.linear import Head, Int8Linear, PackedLinear, pack, saved_bytes, weight_levels, with_products
from models.loader import load
from models.weights import CheckpointError
from tests import golden
from tests.models import asking

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-3}


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


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("halved", [True, False])
def test_products_change_little_and_weigh_a_byte_a_weight(
    cpu_with: Callable[..., None], dtype: torch.dtype, bias: bool, halved: bool
) -> None:
    if halved:  # weights with 64 levels are right on every CPU
        cpu_with()
    torch.manual_seed(0)
    linear, inputs = nn.Linear(64, 96, bias).to(dtype), torch.randn(2, 5, 64, dtype=dtype)
    waiting = with_products(nn.Sequential(nn.Linear(64, 96, bias).to(dtype)), Int8Linear)
    with torch.inference_mode():
        exact, outputs = linear(inputs), quantized(linear)(inputs)
    assert (outputs.dtype, outputs.shape) == (dtype, exact.shape)
    assert (outputs - exact).norm() < 0.025 * exact.norm()
    assert saved_bytes(waiting) == 64 * 96 * (dtype.itemsize - 1) - 12 * 96


def packed(linear: nn.Linear) -> PackedLinear:
    (layer,) = with_products(nn.Sequential(linear), PackedLinear)
    assert isinstance(layer, PackedLinear)
    layer.load_state_dict(linear.state_dict())
    pack(layer)
    return layer


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tokens", [1, 5, 40])
def test_packed_weights_make_the_same_products(dtype: torch.dtype, bias: bool, tokens: int) -> None:
    """Where oneDNN does not have the dtype, weights that stayed as they are do."""
    torch.manual_seed(0)
    linear, inputs = nn.Linear(64, 96, bias).to(dtype), torch.randn(2, tokens, 64, dtype=dtype)
    with torch.inference_mode():
        layer = packed(linear)
        products = layer(inputs)
        exact = F.linear(inputs, linear.weight, linear.bias)
    assert (layer.weight.numel() == 0) is (dtype in instructions().packed)  # never there twice
    assert products.dtype == dtype
    torch.testing.assert_close(products, exact, atol=TOLERANCES[dtype], rtol=TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_weights_stay_as_they_are_where_onednn_does_not_have_the_dtype(
    cpu_with: Callable[..., None], dtype: torch.dtype
) -> None:
    cpu_with(*(TOLERANCES.keys() - {dtype}))
    torch.manual_seed(0)
    linear, inputs = nn.Linear(64, 96).to(dtype), torch.randn(2, 5, 64, dtype=dtype)
    with torch.inference_mode():
        layer = packed(linear)
        assert torch.equal(layer.weight, linear.weight)
        assert torch.equal(layer(inputs), F.linear(inputs, linear.weight, linear.bias))


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_weights_are_given_up_where_onednn_has_the_dtype(
    cpu_with: Callable[..., None], monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    cpu_with(dtype)
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", lambda weight, _tokens: weight.clone())
    assert not packed(nn.Linear(64, 96).to(dtype)).weight.numel()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("bias", [True, False])
def test_packed_products_have_the_derivative_of_the_same_products(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    linear, inputs = nn.Linear(64, 96, bias).to(dtype), torch.randn(2, 5, 64, dtype=dtype)
    weights = torch.randn(2, 5, 96, dtype=dtype)  # of the outputs
    gradients: list[Tensor] = []
    for layer in (linear, packed(linear)):
        leaf = inputs.clone().requires_grad_()
        outputs = layer(leaf)
        assert outputs.requires_grad
        gradients += torch.autograd.grad((outputs * weights).sum(), leaf)
    assert gradients[0].abs().max() > 0.1
    torch.testing.assert_close(gradients[1], gradients[0], atol=TOLERANCES[dtype], rtol=TOLERANCES[dtype])


def test_a_head_is_exact_for_few_tokens_and_many() -> None:
    torch.manual_seed(0)
    head = Head(64, 1000)
    for tokens in (1, 3, 40):
        states = torch.randn(tokens, 64, dtype=torch.bfloat16)
        with torch.inference_mode():
            torch.testing.assert_close(head(states), states.float() @ head.weight.T + head.bias, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("vnni", "levels"), [(True, 127), (False, 64)])
def test_weights_have_half_the_levels_without_vnni(cpu_with: Callable[..., None], vnni: bool, levels: int) -> None:
    cpu_with(vnni=vnni)
    assert weight_levels() == levels


def products_of_the_largest() -> Tensor:
    linear = nn.Linear(256, 8, bias=False)
    nn.init.ones_(linear.weight)
    with torch.inference_mode():
        return quantized(linear)(torch.tensor([[1.0], [-1.0]]).expand(2, 256))


EXACTLY = torch.tensor([[256.0], [-256.0]]).expand(2, 8)


def test_nothing_overflows_where_everything_is_largest() -> None:
    """Two products of the largest weights and activations are added in 16 bits on CPUs without VNNI."""
    torch.testing.assert_close(products_of_the_largest(), EXACTLY, rtol=1e-5, atol=0)


def test_half_the_levels_fit_every_cpu(cpu_with: Callable[..., None]) -> None:
    cpu_with()
    torch.testing.assert_close(products_of_the_largest(), EXACTLY, rtol=1e-5, atol=0)


@pytest.mark.parametrize("limit", ["AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"])
def test_nothing_overflows_under_a_limit_of_onednn(limit: str) -> None:
    """In a process of its own: oneDNN reads its limit once."""
    test = f"{__file__}::{test_nothing_overflows_where_everything_is_largest.__name__}"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test]
    done = subprocess.run(command, env=os.environ | {"ONEDNN_MAX_CPU_ISA": limit}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


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


def test_a_step_that_was_rounded_is_the_same_on_both_sides() -> None:
    """In bf16 a step keeps 8 bits: were it taken exactly on one side, every value of the token would be off alike."""
    if not instructions().bf16:
        pytest.skip("this CPU has no bf16")
    torch.manual_seed(0)
    layer = Int8Linear(256, 64, bias=False).bfloat16()
    exact = layer.weight.detach().double()
    layer.pack()
    x = torch.randn(64, 256).bfloat16()
    with torch.inference_mode():
        product = layer(x).double()
    expected = x.double() @ exact.T
    ratio = (product * expected).sum(-1) / expected.square().sum(-1)  # of a token's length, to what it should be
    assert (ratio - 1).abs().max() < 5e-3
    assert (product - expected).norm() < 0.015 * expected.norm()


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
