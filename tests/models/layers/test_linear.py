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

from models.base import ServedModel, Task
from models.device import instructions
from models.inputs import CaptionInput, Input, PairInput, QuestionInput
from models.layers.kernels import AUTOMATIC, FBGEMM, FBGEMM_LIMIT, ONEDNN, Kernels, has_fbgemm_fp16
from models.layers.linear import (
    Fp16Linear,
    Head,
    Int8Linear,
    PackedLinear,
    SourceLinear,
    products,
    saved_bytes,
    weight_levels,
    with_products,
)
from models.loader import load
from models.weights import CheckpointError
from tests import golden
from tests.models import asking

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-3}

BY_ONEDNN, BY_FBGEMM = Kernels(ONEDNN), Kernels(FBGEMM)


def quantized(linear: nn.Linear, kernels: Kernels = AUTOMATIC) -> Int8Linear:
    (layer,) = with_products(nn.Sequential(linear), Int8Linear)
    assert isinstance(layer, Int8Linear)
    layer.load_state_dict(linear.state_dict())
    kernels.pack(layer)
    return layer


def test_heads_embeddings_and_norms_stay_exact() -> None:
    module = nn.Sequential(nn.Embedding(4, 4), nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)), Head(4, 4))
    with_products(module, Int8Linear)
    assert [type(part) for part in module.modules() if isinstance(part, nn.Linear)] == [Int8Linear, Head]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("halved", [True, False])
@pytest.mark.parametrize("kernels", [BY_ONEDNN, BY_FBGEMM], ids=str)
def test_products_change_little_and_weigh_a_byte_a_weight(
    cpu_with: Callable[..., None], kernels: Kernels, dtype: torch.dtype, bias: bool, halved: bool
) -> None:
    if halved:  # weights with 64 levels are right on every CPU
        cpu_with()
    torch.manual_seed(0)
    linear, inputs = nn.Linear(64, 96, bias).to(dtype), torch.randn(2, 5, 64, dtype=dtype)
    waiting = with_products(nn.Sequential(nn.Linear(64, 96, bias).to(dtype)), Int8Linear)
    with torch.inference_mode():
        exact, outputs = linear(inputs), quantized(linear, kernels)(inputs)
    assert (outputs.dtype, outputs.shape) == (dtype, exact.shape)
    assert (outputs - exact).norm() < 0.025 * exact.norm()
    assert saved_bytes(waiting) == 64 * 96 * (dtype.itemsize - 1) - 12 * 96


def packed(linear: nn.Linear, kernels: Kernels = BY_ONEDNN) -> PackedLinear:
    (layer,) = with_products(nn.Sequential(linear), PackedLinear)
    assert isinstance(layer, PackedLinear)
    layer.load_state_dict(linear.state_dict())
    kernels.pack(layer)
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


@pytest.mark.skipif(not has_fbgemm_fp16(), reason="FBGEMM is not in this build of torch")
@pytest.mark.parametrize("bias", [True, False])
def test_weights_in_fp16_make_nearly_the_same_products_and_derivatives(bias: bool) -> None:
    torch.manual_seed(0)
    linear, inputs, weights = nn.Linear(64, 96, bias), torch.randn(2, 5, 64), torch.randn(2, 5, 96)
    (layer,) = waiting = with_products(nn.Sequential(nn.Linear(64, 96, bias)), Fp16Linear)
    layer.load_state_dict(linear.state_dict())
    assert saved_bytes(waiting) == 2 * 64 * 96
    layer.apply(AUTOMATIC.pack)
    with torch.inference_mode():
        exact, products, alone = linear(inputs), layer(inputs), layer(inputs[:1, :1])
    assert 0 < (products - exact).norm() < 1e-3 * exact.norm()
    torch.testing.assert_close(products[:1, :1], alone, atol=1e-6, rtol=1e-6)
    leaf = inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((layer(leaf) * weights).sum(), leaf)
    torch.testing.assert_close(gradient, weights @ linear.weight, atol=1e-2, rtol=1e-2)


def test_what_is_slower_in_fp16_stays_exact() -> None:
    module = with_products(nn.Sequential(nn.Linear(8, 8), SourceLinear(8, 8)), Fp16Linear)
    assert [type(part) for part in module] == [Fp16Linear, PackedLinear]


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


def products_of_the_largest(kernels: Kernels) -> Tensor:
    linear = nn.Linear(256, 8, bias=False)
    nn.init.ones_(linear.weight)
    with torch.inference_mode():
        return quantized(linear, kernels)(torch.tensor([[1.0], [-1.0]]).expand(2, 256))


EXACTLY = torch.tensor([[256.0], [-256.0]]).expand(2, 8)


@pytest.mark.parametrize("kernels", [BY_ONEDNN, BY_FBGEMM], ids=str)
def test_nothing_overflows_where_everything_is_largest(kernels: Kernels) -> None:
    """Two products of the largest weights and activations are added in 16 bits on CPUs without VNNI."""
    torch.testing.assert_close(products_of_the_largest(kernels), EXACTLY, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kernels", [BY_ONEDNN, BY_FBGEMM], ids=str)
def test_half_the_levels_fit_every_cpu(cpu_with: Callable[..., None], kernels: Kernels) -> None:
    cpu_with()
    torch.testing.assert_close(products_of_the_largest(kernels), EXACTLY, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("limit", "fbgemm"),
    [
        ("AVX2", "AVX2"),
        ("AVX2_VNNI", "AVX2"),
        ("AVX512_CORE", "AVX512"),
        ("AVX512_CORE_VNNI", "AVX512_E1"),
        ("", "AVX2"),
    ],
)
def test_nothing_overflows_under_a_limit(limit: str, fbgemm: str) -> None:
    """In a process of its own: oneDNN reads its limit once, FBGEMM another."""
    test = f"{__file__}::{test_nothing_overflows_where_everything_is_largest.__name__}"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test]
    done = subprocess.run(
        command, env=os.environ | {"ONEDNN_MAX_CPU_ISA": limit, FBGEMM_LIMIT: fbgemm}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def tokens() -> Tensor:
    """Of very different sizes; one is zero."""
    torch.manual_seed(1)
    return torch.randn(6, 64) * torch.tensor([1.0, 1e-4, 1e4, 1.0, 0.0, 10.0])[:, None]


@pytest.mark.parametrize("kernels", [BY_ONEDNN, BY_FBGEMM], ids=str)
def test_a_token_is_quantised_by_itself(kernels: Kernels) -> None:
    torch.manual_seed(0)
    layer, inputs = quantized(nn.Linear(64, 96), kernels), tokens()
    with torch.inference_mode():
        together, alone = layer(inputs), torch.cat([layer(token[None]) for token in inputs])
    assert torch.equal(together, alone)
    assert torch.equal(together[4], layer.bias)


def test_layers_with_one_input_share_its_levels() -> None:
    torch.manual_seed(0)
    layers, inputs = [quantized(nn.Linear(64, 96)) for _ in range(2)], tokens()
    with torch.inference_mode():
        for together, layer in zip(products(inputs, layers), layers, strict=True):
            assert torch.equal(together, layer(inputs))


def test_a_step_that_was_rounded_is_the_same_on_both_sides() -> None:
    """In bf16 a step keeps 8 bits: were it taken exactly on one side, every value of the token would be off alike."""
    if not instructions().bf16:
        pytest.skip("this CPU has no bf16")
    torch.manual_seed(0)
    layer = Int8Linear(256, 64, bias=False).bfloat16()
    exact = layer.weight.detach().double()
    layer.pack(BY_ONEDNN)
    x = torch.randn(64, 256).bfloat16()
    with torch.inference_mode():
        product = layer(x).double()
    expected = x.double() @ exact.T
    ratio = (product * expected).sum(-1) / expected.square().sum(-1)  # of a token's length, to what it should be
    assert (ratio - 1).abs().max() < 5e-3
    assert (product - expected).norm() < 0.015 * expected.norm()


@pytest.mark.parametrize("kernels", [BY_ONEDNN, BY_FBGEMM], ids=str)
def test_what_is_not_finite_stays_so(kernels: Kernels) -> None:
    layer, inputs = quantized(nn.Linear(8, 4), kernels), torch.ones(2, 8)
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


def test_a_head_in_int8_answers_nearly_as_the_exact_one(served: dict[str, ServedModel]) -> None:
    (blip, _) = load("golden", catalog=golden.CATALOG, device="cpu", dtype="fp32", threads=1, int8_head=True)
    requests: dict[Task, Input] = {Task.CAPTION: CaptionInput(), Task.VQA: QuestionInput("what color is it?")}
    for task, request in requests.items():
        one, other = blip.checkpoints[task], served["blip"].checkpoints[task]
        assert (one.dtype, other.dtype) == ("fp32+int8-head", "fp32")
        ours, exact = (
            asking.generate(checkpoint, [asking.item(checkpoint, "s0_ev0", request)])[0].sequences[0]
            for checkpoint in (one, other)
        )
        assert ours.text == exact.text
        assert ours.confidence != exact.confidence
        assert ours.confidence == pytest.approx(exact.confidence, abs=0.05)
    assert blip.checkpoints[Task.MATCH].dtype == "fp32"  # it writes nothing


def test_int8_is_not_compiled() -> None:
    with pytest.raises(CheckpointError, match="int8 products cannot be compiled: start without BLIP_COMPILE"):
        load("golden", catalog=golden.CATALOG, device="cpu", dtype="int8", threads=1, compile_batches=1)


def test_int8_on_another_device_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.loader.choose_device", lambda _: torch.device("meta"))
    with pytest.raises(CheckpointError, match="int8 is for CPUs; on meta choose bf16 or fp16"):
        load("golden", catalog=golden.CATALOG, device="auto", dtype="int8", threads=1)
