"""What it takes to quantise activations."""

from __future__ import annotations

import pytest
import torch

from models.layers.quantization import largest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_largest_magnitude_is_each_tokens_own_on_either_side_of_zero(dtype: torch.dtype) -> None:
    tokens = torch.tensor([[1, -3, 2], [-1, 0.5, 4], [0, 0, 0], [-2, -5, -1]], dtype=dtype)
    assert largest(tokens).tolist() == [[3], [4], [0], [5]]
    assert torch.equal(largest(tokens), tokens.abs().amax(-1, keepdim=True))


def test_what_is_not_a_number_is_not_hidden() -> None:
    assert largest(torch.tensor([[1, torch.nan]])).isnan().all()
