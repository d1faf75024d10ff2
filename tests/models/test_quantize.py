"""Eight-bit weights: what they are for, how exact they are, and what they weigh."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from models.layers import Head
from models.quantize import int8_quantizer, quantizable, saved_bytes
from models.weights import CheckpointError


def test_heads_embeddings_and_norms_stay_exact() -> None:
    product = nn.Linear(4, 4)
    module = nn.Sequential(nn.Embedding(4, 4), nn.Sequential(nn.LayerNorm(4), product), Head(4, 4))
    assert quantizable(module) == [product]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_change_little_and_weigh_a_byte_a_weight(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    linear, inputs = nn.Linear(64, 96).to(dtype), torch.randn(5, 64, dtype=dtype)
    precision, before = torch.get_float32_matmul_precision(), linear.weight.nbytes
    with torch.inference_mode():
        exact = linear(inputs)
        saved = saved_bytes(linear)
        int8_quantizer()(linear)
        outputs = linear(inputs)
    assert outputs.dtype is dtype
    assert (outputs - exact).abs().max() < 0.02 * exact.abs().max()
    kept = [value for value in vars(linear.weight).values() if isinstance(value, torch.Tensor)]
    assert before - saved == sum(tensor.nbytes for tensor in kept)
    assert torch.get_float32_matmul_precision() == precision  # or float32 would be less than that elsewhere


def test_without_the_library_it_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(CheckpointError, match=r"int8 needs torchao: pip install 'blip-serve\[quantize\]'"):
        int8_quantizer()
