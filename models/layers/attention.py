"""Attention, its masks, and the keys and values that it attends to; and BERT's attention layer, which MED and the
Q-Former share (Devlin et al. 2019; salesforce/BLIP models/med.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.linear import LayerNorm, SourceLinear, products

SCORES_AT_ONCE = 2**22  # attention scores that a CPU's cache holds beside keys and values


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """`(rows, tokens, width)` -> `(rows, heads, tokens, width / heads)`, a view."""
    rows, tokens, width = x.shape
    return x.view(rows, tokens, num_heads, width // num_heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """The inverse of `split_heads`."""
    rows, num_heads, tokens, size = x.shape
    return x.transpose(1, 2).reshape(rows, tokens, num_heads * size)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """Scaled dot-product attention over split heads; `mask` is true where a query may attend, or added to its scores.

    `scale`: None for 1 / sqrt(head width)."""
    if query.is_cpu and query.dtype == torch.bfloat16:
        return _attend_by_products(query, key, value, mask, query.shape[-1] ** -0.5 if scale is None else scale)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


def _attend_by_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """For bf16 on CPUs, where torch's fused kernel takes longer than separate products: 1.5 times as long for the
    tokens of an image, 4 times for one token each of 16 rows. As many rows at a time as fit into the CPU's cache.

    The soft-max is computed in float32; its input scores and output weights are rounded to bf16, as in the authors'
    code under autocast."""
    rows, num_heads, queries, _ = query.shape
    at_once = max(1, SCORES_AT_ONCE // (num_heads * queries * key.shape[2]))
    if rows > at_once:
        every = None if mask is None else mask.expand(rows, -1, -1, -1)
        parts = [slice(start, start + at_once) for start in range(0, rows, at_once)]
        return torch.cat(
            [
                _attend_by_products(query[own], key[own], value[own], None if every is None else every[own], scale)
                for own in parts
            ]
        )
    return attention_weights(query, key, mask, scale) @ value


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """`(rows, heads, queries, keys)`, over split heads; each query's sum to 1."""
    scores = (query * scale) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1)


@dataclass(frozen=True, slots=True)
class Lines:
    """Which row of keys and values each line attends to. Lines of one row, such as its beams, become query positions of
    one attention call, so that no keys or values are copied for them.

    `places`: `(lines,)`, the index of each line among `num_rows` x `width`; None: every row has `width` lines."""

    num_rows: int
    width: int
    places: Tensor | None = None

    @classmethod
    def of(cls, counts: Sequence[int], device: torch.device) -> Lines:
        """For rows with this many consecutive lines each."""
        width = max(counts)
        if min(counts) == width:
            return cls(len(counts), width)
        places = [row * width + line for row, count in enumerate(counts) for line in range(count)]
        return cls(len(counts), width, torch.tensor(places, device=device))

    def by_row(self, x: Tensor) -> Tensor:
        """`(lines, tokens, size)` -> `(rows, width x tokens, size)`; places without a line are zero."""
        _, tokens, size = x.shape
        if self.places is not None:
            x = x.new_zeros(self.num_rows * self.width, tokens, size).index_copy_(0, self.places, x)
        return x.reshape(self.num_rows, self.width * tokens, size)

    def by_line(self, x: Tensor, tokens: int) -> Tensor:
        """The inverse of `by_row`."""
        x = x.reshape(self.num_rows * self.width, tokens, x.shape[-1])
        return x if self.places is None else x[self.places]


class KeyValue(NamedTuple):
    """Keys and values of one layer, each `(rows, heads, tokens, width / heads)`."""

    key: Tensor
    value: Tensor

    @property
    def num_rows(self) -> int:
        return len(self.key)

    def as_precise_as(self, query: Tensor) -> KeyValue:
        """Itself where it has that dtype already."""
        return self if self.key.dtype == query.dtype else KeyValue(self.key.to(query.dtype), self.value.to(query.dtype))

    def followed_by(self, other: KeyValue) -> KeyValue:
        """The tokens of both, this one's first."""
        return KeyValue(torch.cat([self.key, other.key], 2), torch.cat([self.value, other.value], 2))

    def attend(
        self, query: Tensor, mask: Tensor | None = None, lines: Lines | None = None, scale: float | None = None
    ) -> Tensor:
        """Each line attends to its row: `query` `(lines, tokens, width)` -> `(lines, tokens, width)`.

        `mask` is broadcast to `(rows, heads, queries, tokens)`. `lines`: None if each row has equally many."""
        rows, num_heads, _, _ = self.key.shape
        if lines is None:
            lines = Lines(rows, len(query) // rows)
        mixed = self.mix(split_heads(lines.by_row(query), num_heads), mask, scale)
        return lines.by_line(merge_heads(mixed), query.shape[1])

    def mix(self, query: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
        """Values by attention, over split heads."""
        return attend(query, self.key, self.value, mask, scale)


class WatchedKeyValue(KeyValue):
    """Keeps the weights of its attention, to be differentiated by."""

    weights: Tensor  # (rows, heads, queries, tokens), once it was attended to

    def mix(self, query: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        self.weights = attention_weights(query, self.key, mask, scale).detach().requires_grad_()
        return self.weights @ self.value

    def heat(self, score: Tensor, lines: Lines, tokens: int) -> Tensor:
        """GradCAM: what of the attention the `score` rests on, its gradient above 0 times the weights, as the mean of
        the heads: `(lines, tokens, keys)` float32.

        Source: Selvaraju et al. 2017; LAVIS models/blip_models/blip_image_text_matching.py, compute_gradcam."""
        (gradient,) = torch.autograd.grad(score, self.weights)
        heat = (gradient.float().clamp_min(0) * self.weights.detach().float()).mean(1)
        return lines.by_line(heat, tokens)


class Past(Protocol):
    """Earlier keys and values of one layer: a `KeyValue`, or a cache that is written in place."""

    def followed_by(self, other: KeyValue, /) -> KeyValue: ...


@dataclass(frozen=True, slots=True)
class Source:
    """What the cross-attention of every layer attends to, projected once and shared by the lines that attend to it.

    `layers`: one `KeyValue` per layer. `mask`: `(rows, 1, 1, tokens)`, false for padding; None if there is none.
    `lines`: which lines attend to each row; None if each row has equally many."""

    layers: Sequence[KeyValue]
    mask: Tensor | None = None
    lines: Lines | None = None

    @property
    def num_rows(self) -> int:
        return self.layers[0].num_rows

    def watching(self, layer: int) -> tuple[Source, WatchedKeyValue]:
        """The same, and its keys and values of `layer`, which keep their attention."""
        assert type(self.layers[layer]) is KeyValue, "rows that are apart cannot be watched"
        watched = WatchedKeyValue(*self.layers[layer])
        layers = [*self.layers[:layer], watched, *self.layers[layer + 1 :]]
        return replace(self, layers=layers), watched


def padding_mask(mask: Tensor) -> Tensor:
    """Bidirectional: `(lines, tokens)` -> `(lines, 1, 1, tokens)`."""
    return mask[:, None, None, :]


def causal_mask(mask: Tensor) -> Tensor:
    """A token attends to itself and earlier ones, never to padding: `(lines, tokens)` -> `(lines, 1, tokens, tokens)`.

    The diagonal is always true: a padding token with nothing to attend to would be NaN."""
    length = mask.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=mask.device)
    return (earlier & mask[:, None, None, :]) | itself


@dataclass(frozen=True, slots=True)
class BertConfig:
    vocabulary: int
    num_positions: int
    width: int
    source_width: int  # of the states that the cross-attention looks at
    num_layers: int
    num_heads: int
    mlp_width: int
    norm_epsilon: float


class BertAttention(nn.Module):
    """Multi-head attention with BERT's post-norm residual."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.out = nn.Linear(config.width, config.width)
        self.norm = LayerNorm(config.width, eps=config.norm_epsilon)

    def look(self, x: Tensor, query: Tensor, source: KeyValue, mask: Tensor | None, lines: Lines | None) -> Tensor:
        """`x` and its `query` `(lines, tokens, width)` -> the same shape, after residual and norm. `mask`: true where
        `x` may look, broadcast to `(rows, 1, queries, keys)`."""
        return self.norm(x + self.out(source.attend(query, mask, lines)))


class BertSelfAttention(BertAttention):
    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.query_key_value = nn.Linear(config.width, 3 * config.width)

    def forward(
        self, x: Tensor, mask: Tensor | None, past: Past | None = None, lines: Lines | None = None
    ) -> tuple[Tensor, KeyValue]:
        """As `look`, and the keys and values of past and present tokens."""
        query, *present = self.query_key_value(x).chunk(3, -1)
        seen = KeyValue(*(split_heads(part, self.num_heads) for part in present))
        if past is not None:
            seen = past.followed_by(seen)
        return self.look(x, query, seen, mask, lines), seen


class BertCrossAttention(BertAttention):
    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.query = nn.Linear(config.width, config.width)
        self.key_value = SourceLinear(config.source_width, 2 * config.width)

    def forward(self, x: Tensor, source: KeyValue, mask: Tensor | None = None, lines: Lines | None = None) -> Tensor:
        return self.look(x, self.query(x), source, mask, lines)


class Looking(Protocol):
    """A layer's cross-attention."""

    num_heads: int

    @property
    def key_value(self) -> nn.Linear: ...


def project(source: Tensor, attentions: Sequence[Looking]) -> list[KeyValue]:
    """Keys and values for each, from `source` `(rows, tokens, source width)`."""
    projected = products(source, [attention.key_value for attention in attentions])
    return [
        KeyValue(*(split_heads(part, attention.num_heads) for part in both.chunk(2, -1)))
        for attention, both in zip(attentions, projected, strict=True)
    ]
