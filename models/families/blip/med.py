"""MED, BLIP's multimodal mixture of encoder-decoder: a BERT with cross-attention to a source (an image, or an encoded
question), bidirectional as an encoder and causal as a decoder.

Source: Li et al. 2022, section 3.1; salesforce/BLIP models/med.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.attention import (
    BertConfig,
    BertCrossAttention,
    BertSelfAttention,
    KeyValue,
    Lines,
    Past,
    Source,
    project,
)
from models.layers.linear import Head, LayerNorm, Vocabulary
from models.layers.precision import Served
from models.weights import KeyMap, Tied

MED_KEYS: KeyMap = (
    (r"^tokens\.", "embeddings.word_embeddings."),
    (r"^positions\.", "embeddings.position_embeddings."),
    (r"^norm\.", "embeddings.LayerNorm."),
    (r"^layers\.(\d+)\.norm\.", r"encoder.layer.\1.output.LayerNorm."),
    (r"^layers\.", "encoder.layer."),
    (r"\.self_attention\.", ".attention."),
    (r"\.cross_attention\.", ".crossattention."),
    (r"\.(attention|crossattention)\.(query|key|value)\.", r".\1.self.\2."),
    (r"\.(attention|crossattention)\.out\.", r".\1.output.dense."),
    (r"\.(attention|crossattention)\.norm\.", r".\1.output.LayerNorm."),
    (r"\.up\.", ".intermediate.dense."),
    (r"\.down\.", ".output.dense."),
)
LM_HEAD_KEYS: KeyMap = (
    (r"^transform\.", "transform.dense."),
    (r"^norm\.", "transform.LayerNorm."),
)
MED_TIED: Tied = {
    "text_decoder.bert.embeddings.word_embeddings.weight": ("text_decoder.cls.predictions.decoder.weight",),
    "text_decoder.cls.predictions.bias": ("text_decoder.cls.predictions.decoder.bias",),
}


class Layer(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self_attention = BertSelfAttention(config)
        self.cross_attention = BertCrossAttention(config)
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)
        self.norm = LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        past: Past | None,
        lines: Lines | None,
        look: tuple[KeyValue, Source] | None,
    ) -> tuple[Tensor, KeyValue]:
        """`x`: `(lines, tokens, width)`. `look`: the source, and its keys and values for this layer; None: no source.

        Returns the new `x`, and the self-attention's keys and values of past and present tokens."""
        x, seen = self.self_attention(x, mask, past, lines)
        if look is not None:
            keys, source = look
            x = self.cross_attention(x, keys, source.mask, source.lines)
        return self.norm(x + self.down(F.gelu(self.up(x)))), seen


class MED(Served):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.num_positions, config.width)
        self.norm = LayerNorm(config.width, eps=config.norm_epsilon)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))

    @property
    def token_bytes(self) -> int:
        """KV-cache bytes of one token in all layers; a token of the source takes as many."""
        return 2 * self.config.num_layers * self.config.width * self.dtype.itemsize

    def _layers(self) -> list[Layer]:
        return cast("list[Layer]", list(self.layers))

    def look_at(self, source: Tensor, mask: Tensor | None = None, lines: Lines | None = None) -> Source:
        """Keys and values for every layer's cross-attention, from `source` `(rows, tokens, source width)`.

        `mask` `(rows, tokens)`: false at padding; None: there is none. `lines`: as in `Source`."""
        source = source.to(self.dtype)
        layers = project(source, [layer.cross_attention for layer in self._layers()])
        return Source(layers, None if mask is None else mask[:, None, None, :], lines)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None,
        source: Source | None = None,
        positions: Tensor | None = None,
        past: Sequence[Past] | None = None,
        lines: Lines | None = None,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Hidden states `(lines, tokens, width)` of the last layer, and every layer's self-attention keys and values.

        `ids`: `(lines, tokens)`. `mask`: true where a token may look, broadcast to `(rows, 1, queries, past + tokens)`.
        `source`: None skips the cross-attention (BLIP's text mode). `positions`: `(lines, tokens)`; None: 0, 1, ...
        `past`: the keys and values of earlier tokens, one for each layer. `lines`: which row of `past` each line has;
        None: each line its own."""
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.norm(self.tokens(ids) + self.positions(positions)).to(self.dtype)
        kept: list[KeyValue] = []
        for index, layer in enumerate(self._layers()):
            look = (source.layers[index], source) if source is not None else None
            x, seen = layer(x, mask, past[index] if past is not None else None, lines, look)
            kept.append(seen)
        return x, kept


class LMHead(Vocabulary):
    """BERT's language-model head, with the token embedding as its output matrix: `(..., width)` -> logits float32."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.transform = Head(config.width, config.width)
        self.norm = LayerNorm(config.width, eps=config.norm_epsilon)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))

    def forward(self, states: Tensor, tokens: nn.Embedding) -> Tensor:
        return self.project(self.norm(F.gelu(self.transform(states))), tokens.weight, self.bias)
