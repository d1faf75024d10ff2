"""Layers that every family uses. Weights and activations of the big matrix products are in the serving dtype;
normalisation, embeddings and heads are exact: their weights stay float32, whatever the serving dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm(nn.LayerNorm):
    """Layer normalisation in float32; the result has the dtype of the input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class Head(nn.Linear):
    """A projection in float32, whatever the dtype of its input: `(..., in)` -> `(..., out)` float32."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """`(rows, tokens, width)` -> `(rows, heads, tokens, width / heads)`, a view."""
    rows, tokens, width = x.shape
    return x.view(rows, tokens, num_heads, width // num_heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """The inverse of `split_heads`."""
    rows, num_heads, tokens, size = x.shape
    return x.transpose(1, 2).reshape(rows, tokens, num_heads * size)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention over split heads; `mask` is true where a query may look."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


class KeyValue(NamedTuple):
    """Keys and values of one layer, each `(rows, heads, tokens, width / heads)`."""

    key: Tensor
    value: Tensor

    def followed_by(self, other: KeyValue) -> KeyValue:
        """The tokens of both, this one's first."""
        return KeyValue(torch.cat([self.key, other.key], 2), torch.cat([self.value, other.value], 2))


@dataclass(frozen=True, slots=True)
class Source:
    """What the cross-attention of every layer looks at, projected once and shared by the lines that ask about it.

    `layers`: one `KeyValue` a layer, over `rows` sources. `mask`: `(rows, 1, 1, tokens)`, true where there is a token;
    None if every token is one. `lines`: how many consecutive lines look at each row; None: equally many."""

    layers: list[KeyValue]
    mask: Tensor | None = None
    lines: tuple[int, ...] | None = None


def padding_mask(mask: Tensor) -> Tensor:
    """Bidirectional: `(lines, tokens)` -> `(lines, 1, 1, tokens)`."""
    return mask[:, None, None, :]


def causal_mask(mask: Tensor) -> Tensor:
    """Every token looks at itself and back, never at padding: `(lines, tokens)` -> `(lines, 1, tokens, tokens)`.

    The diagonal is always true: a padding token with nothing to look at would be NaN."""
    length = mask.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=mask.device)
    return (earlier & mask[:, None, None, :]) | itself


def serving_dtype(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Give the big matrix products of `module` the serving dtype, in place; all else becomes float32."""
    module.float()
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d) and not isinstance(part, Head):
            part.to(dtype)
    return module
