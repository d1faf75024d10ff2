"""Which kernel is taken: the rules, with made-up times and CPUs; and that one which is named is taken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from models.layers import kernels
from models.layers.kernels import (
    AUTOMATIC,
    FBGEMM,
    FBGEMM_LIMIT,
    ONEDNN,
    TORCH,
    Kernels,
    Shape,
    exact_candidates,
    fastest,
    fbgemm_has_vnni,
    has_fbgemm_fp16,
    int8_candidates,
)
from models.layers.linear import (
    Fp16Linear,
    Head,
    Int8Linear,
    Kind,
    PackedLinear,
    SourceLinear,
    kernels_of,
    with_products,
)


def test_the_usual_kernel_is_taken_unless_another_is_worth_it() -> None:
    assert fastest({ONEDNN: 1.0, TORCH: 0.91}) == ONEDNN
    assert fastest({ONEDNN: 1.0, TORCH: 0.89}) == TORCH
    assert fastest({TORCH: 1.0}) == TORCH


def test_half_precision_is_for_onednn_where_it_takes_it() -> None:
    both = frozenset({torch.float32, torch.bfloat16})
    assert exact_candidates(torch.float32, both) == (ONEDNN, TORCH)
    assert exact_candidates(torch.bfloat16, both) == (ONEDNN,)
    assert exact_candidates(torch.float16, both) == exact_candidates(torch.float32, frozenset()) == (TORCH,)


@pytest.mark.parametrize(
    ("vnni", "fbgemm", "fbgemm_vnni", "names"),
    [
        (True, True, True, (ONEDNN, FBGEMM)),
        (True, True, False, (ONEDNN,)),  # weights have more levels than it can add
        (False, True, False, (FBGEMM, ONEDNN)),  # without VNNI it is the usual one for few tokens
        (False, False, False, (ONEDNN,)),
    ],
)
def test_fbgemm_is_tried_where_its_sums_fit(vnni: bool, fbgemm: bool, fbgemm_vnni: bool, names: tuple[str]) -> None:
    assert int8_candidates(Shape.TEXT, vnni=vnni, fbgemm=fbgemm, fbgemm_vnni=fbgemm_vnni) == names
    tower = int8_candidates(Shape.TOWER, vnni=vnni, fbgemm=fbgemm, fbgemm_vnni=fbgemm_vnni)
    assert tower[0] == ONEDNN
    assert set(tower) == set(names)


@pytest.mark.parametrize(
    ("has", "limit", "vnni"),
    [(True, "", True), (True, "avx512_e1", True), (True, "AVX2", False), (True, "AVX512", False), (False, "", False)],
)
def test_fbgemm_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch, has: bool, limit: str, vnni: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": has})
    monkeypatch.setenv(FBGEMM_LIMIT, limit)
    assert fbgemm_has_vnni() is vnni


def test_without_fbgemm_onednn_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a torch that has given up what its weights are packed from."""
    monkeypatch.delattr(torch, "_make_per_channel_quantized_tensor")
    kernels.has_fbgemm.cache_clear()
    try:
        assert Kernels(FBGEMM).int8(Shape.TEXT) == ONEDNN
    finally:
        kernels.has_fbgemm.cache_clear()


def test_a_class_of_shapes_is_tried_once(monkeypatch: pytest.MonkeyPatch, cpu_with: Callable[..., None]) -> None:
    cpu_with(torch.float32)
    tried: list[str] = []

    def trial(_: Shape, name: str) -> Callable[[], object]:
        tried.append(name)
        return lambda: None

    monkeypatch.setattr(kernels, "_exact_trial", trial)
    monkeypatch.setattr(kernels, "TRIAL_SECONDS", 0)
    kernels._tried.cache_clear()
    names = {AUTOMATIC.exact(Shape.TEXT, torch.float32) for _ in range(3)}
    assert len(names) == 1 <= len(names & {ONEDNN, TORCH})
    assert tried == [ONEDNN, TORCH]


def test_one_that_is_named_is_taken_untried_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch, cpu_with: Callable[..., None]
) -> None:
    cpu_with(torch.float32, torch.bfloat16)
    monkeypatch.setattr(kernels, "_tried", lambda *_: "the fastest")
    assert Kernels(TORCH).exact(Shape.TOWER, torch.float32) == TORCH
    assert Kernels(TORCH).exact(Shape.TOWER, torch.bfloat16) == ONEDNN
    assert Kernels(FBGEMM).exact(Shape.TEXT, torch.float32) == ONEDNN  # the usual one


KINDS = [PackedLinear, Int8Linear, *([Fp16Linear] if has_fbgemm_fp16() else [])]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [ONEDNN, TORCH, FBGEMM])
def test_every_kernel_makes_the_product(kind: Kind, name: str) -> None:
    torch.manual_seed(0)
    linear, inputs = nn.Linear(64, 96), torch.randn(5, 64)
    (layer,) = with_products(nn.Sequential(nn.Linear(64, 96)), kind)
    layer.load_state_dict(linear.state_dict())
    Kernels(name).pack(layer)
    with torch.inference_mode():
        assert (layer(inputs) - linear(inputs)).norm() < 0.025 * linear(inputs).norm()


def test_what_is_taken_is_told_by_class() -> None:
    module = with_products(nn.Sequential(nn.Linear(8, 8), SourceLinear(8, 8), Head(8, 8)), PackedLinear)
    assert kernels_of(module) == {}
    module.apply(Kernels(TORCH).pack)
    assert kernels_of(module) == dict.fromkeys(["tower", "text", "head"], TORCH)
    other = with_products(nn.Sequential(nn.Linear(8, 8)), Int8Linear)
    other.apply(Kernels(ONEDNN).pack)
    assert kernels_of(module, other)["text"] == "torch+onednn"
