"""Attention in half precision on a CPU: made of products, in parts, and the same as torch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from models.layers import attention as layers
from models.layers.attention import attend


@pytest.mark.parametrize("at_once", [1, 3 * 2 * 4 * 6, 2**22])  # a row, three rows, all of them
@pytest.mark.parametrize("mask", ["none", "of each row", "of all rows", "added"])
def test_attention_by_products_is_attention(mask: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "SCORES_AT_ONCE", at_once)
    torch.manual_seed(0)
    query, key, value = (torch.randn(7, 2, tokens, 8).bfloat16() for tokens in (4, 6, 6))
    query *= 4  # scores up to 20: what matters is where the soft-max is sharp
    looks = torch.rand(7, 1, 4, 6) > 0.3
    looks[..., 0] = True
    masks = {"none": None, "of each row": looks, "of all rows": looks[:1], "added": torch.randn(7, 2, 4, 6).bfloat16()}
    given = masks[mask]
    added = given.float() if given is not None and given.is_floating_point() else given
    exact = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=added)
    half = attend(query, key, value, given)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=0.05, rtol=0.05)
