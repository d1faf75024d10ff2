"""Flan-T5, an encoder-decoder language model: in BLIP-2 its encoder reads an image's projected queries, then text.

Source: Raffel et al. 2020 (T5 1.1: gated GELU, no tied head); transformers models/t5/modeling_t5.py, which LAVIS
copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.attention import KeyValue, Lines, Past, Source, project, split_heads
from models.layers.linear import Head, SourceLinear, Vocabulary
from models.layers.precision import Served
from models.weights import KeyMap, Tied

T5_KEYS: KeyMap = (
    (r"^tokens\.", "shared."),
    (r"^head\.", "lm_head."),
    (r"coder\.norm\.", "coder.final_layer_norm."),
    (r"\.distances\.", ".block.0.layer.0.SelfAttention.relative_attention_bias."),
    (r"\.layers\.", ".block."),
    (r"^(encoder.*)\.feed_forward\.", r"\1.layer.1.DenseReluDense."),
    (r"^(decoder.*)\.feed_forward\.", r"\1.layer.2.DenseReluDense."),
    (r"\.attention\.", ".layer.0.SelfAttention."),
    (r"\.cross_attention\.", ".layer.1.EncDecAttention."),
    (r"\.(SelfAttention|EncDecAttention|DenseReluDense)\.norm\.", ".layer_norm."),
    (r"Attention\.(query|key|value|out)\.", lambda found: f"Attention.{found[1][0]}."),
    (r"\.gate\.", ".wi_0."),
    (r"\.up\.", ".wi_1."),
    (r"\.down\.", ".wo."),
    (r"^", "language_model."),
)
T5_TIED: Tied = {
    "language_model.shared.weight": (
        "language_model.encoder.embed_tokens.weight",
        "language_model.decoder.embed_tokens.weight",
    ),
}


@dataclass(frozen=True, slots=True)
class T5Config:
    vocabulary: int
    width: int
    head_width: int
    num_heads: int
    mlp_width: int
    num_encoder_layers: int
    num_decoder_layers: int
    num_buckets: int  # of relative positions
    max_distance: int  # tokens; everything further apart is in the last bucket
    norm_epsilon: float


class RMSNorm(nn.RMSNorm):
    """Root mean square normalisation in float32; the result has the dtype of the input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class Attention(nn.Module):
    """Multi-head attention without scaling and without biases in its projections."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        inner = config.num_heads * config.head_width
        self.num_heads = config.num_heads
        self.norm = RMSNorm(config.width, eps=config.norm_epsilon)
        self.out = nn.Linear(inner, config.width, bias=False)

    def look(self, x: Tensor, query: Tensor, source: KeyValue, bias: Tensor | None, lines: Lines | None) -> Tensor:
        """`x` and its `query` `(lines, tokens, width)` -> the same shape, after the residual. `bias`: added to the
        scores, for relative positions and mask; broadcast to `(rows, heads, queries, keys)`."""
        return x + self.out(source.attend(query, bias, lines, scale=1.0))


class SelfAttention(Attention):
    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.query_key_value = nn.Linear(config.width, 3 * config.num_heads * config.head_width, bias=False)

    def forward(
        self, x: Tensor, bias: Tensor, past: Past | None = None, lines: Lines | None = None
    ) -> tuple[Tensor, KeyValue]:
        """As `look`, and the keys and values of past and present tokens."""
        query, *present = self.query_key_value(self.norm(x)).chunk(3, -1)
        seen = KeyValue(*(split_heads(part, self.num_heads) for part in present))
        if past is not None:
            seen = past.followed_by(seen)
        return self.look(x, query, seen, bias, lines), seen


class CrossAttention(Attention):
    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        inner = config.num_heads * config.head_width
        self.query = nn.Linear(config.width, inner, bias=False)
        self.key_value = SourceLinear(config.width, 2 * inner, bias=False)

    def forward(self, x: Tensor, source: KeyValue, bias: Tensor | None, lines: Lines | None) -> Tensor:
        return self.look(x, self.query(self.norm(x)), source, bias, lines)


class FeedForward(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.norm = RMSNorm(config.width, eps=config.norm_epsilon)
        self.gate_up = nn.Linear(config.width, 2 * config.mlp_width, bias=False)
        self.down = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(self.norm(x)).chunk(2, -1)
        return x + self.down(F.gelu(gate) * up)


class EncoderLayer(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x, _ = self.attention(x, bias)
        return self.feed_forward(x)


class DecoderLayer(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.cross_attention = CrossAttention(config)
        self.feed_forward = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        bias: Tensor,
        source: KeyValue,
        source_bias: Tensor | None,
        past: Past | None,
        lines: Lines | None,
    ) -> tuple[Tensor, KeyValue]:
        x, seen = self.attention(x, bias, past, lines)
        x = self.cross_attention(x, source, source_bias, lines)
        return self.feed_forward(x), seen


class Encoder(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.distances = nn.Embedding(config.num_buckets, config.num_heads)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_encoder_layers))
        self.norm = RMSNorm(config.width, eps=config.norm_epsilon)


class Decoder(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.distances = nn.Embedding(config.num_buckets, config.num_heads)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_decoder_layers))
        self.norm = RMSNorm(config.width, eps=config.norm_epsilon)


class T5(Served, Vocabulary):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.head = Head(config.width, config.vocabulary, bias=False)

    def vocabulary(self) -> tuple[Vocabulary, Tensor, Tensor | None]:
        return self, self.head.weight, None

    @property
    def token_bytes(self) -> int:
        """KV-cache bytes of one token in all layers of the decoder; a token of the encoder takes as many."""
        config = self.config
        return 2 * config.num_decoder_layers * config.num_heads * config.head_width * self.dtype.itemsize

    def encode(self, x: Tensor, mask: Tensor) -> Tensor:
        """Embeddings `(lines, tokens, width)` -> hidden states of the same shape. `mask` `(lines, tokens)`: false at
        padding, which is on the right."""
        bias = self._bias(self.encoder.distances, _distance(x.shape[1], x.device), bidirectional=True)
        bias = bias.masked_fill(~mask[:, None, None, :], -torch.inf)
        x = x.to(self.dtype)
        for layer in self.encoder.layers:
            x = layer(x, bias)
        return self.encoder.norm(x)

    def look_at(self, states: Tensor, mask: Tensor) -> Source:
        """Keys and values for every decoder layer's cross-attention, from the encoder's `states` `(lines, tokens,
        width)`. `mask` `(lines, tokens)`: false at padding."""
        attentions = [cast("DecoderLayer", layer).cross_attention for layer in self.decoder.layers]
        return Source(project(states, attentions), mask[:, None, None, :])

    def decode(
        self,
        ids: Tensor,
        mask: Tensor,
        source: Source,
        past: Sequence[Past] | None = None,
        lines: Lines | None = None,
        distance: Tensor | None = None,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Hidden states `(lines, tokens, width)` of `ids`, and every layer's keys and values.

        `mask`: true where a token may look, broadcast to `(rows, 1, queries, past + tokens)`. `past`: the keys and
        values of earlier tokens, one for each layer. `lines`: which row of `past` each line has; None: each line its
        own. `distance`: key position - query position, in tokens, `(rows, queries, past + tokens)`; None, only without
        `past`: tokens are consecutive."""
        if distance is None:
            distance = _distance(ids.shape[1], ids.device)
        bias = self._bias(self.decoder.distances, distance, bidirectional=False)
        bias = bias.masked_fill(~mask, -torch.inf)
        source_bias = None
        if source.mask is not None:
            source_bias = torch.zeros_like(source.mask, dtype=self.dtype).masked_fill(~source.mask, -torch.inf)
        x = self.tokens(ids).to(self.dtype)
        kept: list[KeyValue] = []
        for index, layer in enumerate(self.decoder.layers):
            own = past[index] if past is not None else None
            x, seen = layer(x, bias, source.layers[index], source_bias, own, lines)
            kept.append(seen)
        return self.decoder.norm(x), kept

    def logits(self, states: Tensor) -> Tensor:
        """`(..., width)` -> `(..., vocabulary)` float32."""
        return self.project(states, self.head.weight, None)

    def _bias(self, distances: nn.Embedding, distance: Tensor, *, bidirectional: bool) -> Tensor:
        """What relative positions add to the scores: `(rows, queries, keys)` -> `(rows, heads, queries, keys)`."""
        buckets = bucket(distance, self.config.num_buckets, self.config.max_distance, bidirectional=bidirectional)
        return distances(buckets).movedim(-1, 1).to(self.dtype)


def _distance(length: int, device: torch.device) -> Tensor:
    """Key position - query position for consecutive tokens, `(1, length, length)`."""
    places = torch.arange(length, device=device)
    return (places - places[:, None])[None]


def bucket(distance: Tensor, num_buckets: int, max_distance: int, *, bidirectional: bool) -> Tensor:
    """The bucket of each `distance` (key position - query position): half of the buckets are for one distance each, the
    others grow logarithmically."""
    first = torch.zeros_like(distance)
    if bidirectional:
        num_buckets //= 2
        first = (distance > 0) * num_buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = num_buckets // 2
    scale = (num_buckets - exact) / math.log(max_distance / exact)
    far = exact + (torch.log(distance.clamp(min=1) / exact) * scale).long()
    return first + torch.where(distance < exact, distance, far.clamp(max=num_buckets - 1))
