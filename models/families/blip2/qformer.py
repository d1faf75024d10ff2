"""The Q-Former, BLIP-2's querying transformer: a BERT over learned queries and a text beside them.

Queries and text share the self-attention; each has its own feed-forward. In every other layer, usually, the queries
(not the text) have cross-attention to the image.

Source: Li et al. 2023, section 3.1; LAVIS models/blip2_models/Qformer.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.attention import BertConfig, BertCrossAttention, BertSelfAttention, Lines, Source, project
from models.layers.linear import LayerNorm
from models.weights import KeyMap

QFORMER_KEYS: KeyMap = (
    (r"^queries$", "query_tokens"),
    (r"^tokens\.", "embeddings.word_embeddings."),
    (r"^positions\.", "embeddings.position_embeddings."),
    (r"^norm\.", "qformer.layernorm."),
    (r"^layers\.", "qformer.encoder.layer."),
    (r"\.query_feed_forward\.up\.", ".intermediate_query.dense."),
    (r"\.query_feed_forward\.down\.", ".output_query.dense."),
    (r"\.query_feed_forward\.norm\.", ".output_query.LayerNorm."),
    (r"\.text_feed_forward\.up\.", ".intermediate.dense."),
    (r"\.text_feed_forward\.down\.", ".output.dense."),
    (r"\.text_feed_forward\.norm\.", ".output.LayerNorm."),
    (r"\.self_attention\.", ".attention."),
    (r"\.cross_attention\.", ".crossattention."),
    (r"\.(attention|crossattention)\.(query|key|value)\.", r".\1.attention.\2."),
    (r"\.(attention|crossattention)\.out\.", r".\1.output.dense."),
    (r"\.(attention|crossattention)\.norm\.", r".\1.output.LayerNorm."),
)


@dataclass(frozen=True, slots=True)
class QFormerConfig(BertConfig):
    num_queries: int
    cross_attention_every: int  # layers, from the first
    reads_text: bool


class FeedForward(nn.Module):
    """BERT's feed-forward, with its post-norm residual."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)
        self.norm = LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.down(F.gelu(self.up(x))))


class Layer(nn.Module):
    def __init__(self, config: QFormerConfig, *, looks: bool) -> None:
        super().__init__()
        self.self_attention = BertSelfAttention(config)
        self.cross_attention = BertCrossAttention(config) if looks else None
        self.query_feed_forward = FeedForward(config)
        self.text_feed_forward = FeedForward(config) if config.reads_text else None


class QFormer(nn.Module):
    """Always in float32: in half precision the ITM logits are off by 0.06."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        self.config = config
        self.queries = nn.Parameter(torch.zeros(1, config.num_queries, config.width))
        if config.reads_text:
            self.tokens = nn.Embedding(config.vocabulary, config.width)
            self.positions = nn.Embedding(config.num_positions, config.width)
        self.norm = LayerNorm(config.width, eps=config.norm_epsilon)
        self.layers = nn.ModuleList(
            Layer(config, looks=index % config.cross_attention_every == 0) for index in range(config.num_layers)
        )

    def _layers(self) -> list[Layer]:
        return cast("list[Layer]", list(self.layers))

    def look_at(self, images: Tensor, lines: Lines | None = None) -> Source:
        """Keys and values for every cross-attention, from `images` `(rows, tokens, source width)`. `lines`: as in
        `Source`."""
        images = images.float()
        looking = [layer.cross_attention for layer in self._layers() if layer.cross_attention is not None]
        return Source(project(images, looking), lines=lines)

    def forward(self, source: Source | None, ids: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Hidden states of the last layer, `(lines, queries + tokens, width)`.

        Queries take part if there is a `source`, text if there are `ids` `(lines, tokens)`; at least one must. `mask`:
        true where a query or token may look, broadcast to `(lines, 1, queries + tokens, queries + tokens)`."""
        x = self.norm(torch.cat(self._embeddings(source, ids), dim=1))
        looks = iter(source.layers) if source is not None else None
        split = self.config.num_queries if source is not None else 0
        for layer in self._layers():
            x, _ = layer.self_attention(x, mask)
            queries, text = x[:, :split], x[:, split:]
            parts = []
            if source is not None and looks is not None:
                if layer.cross_attention is not None:
                    queries = layer.cross_attention(queries, next(looks), None, source.lines)
                parts.append(layer.query_feed_forward(queries))
            if layer.text_feed_forward is not None and ids is not None:
                parts.append(layer.text_feed_forward(text))
            x = torch.cat(parts, dim=1)
        return x

    def _embeddings(self, source: Source | None, ids: Tensor | None) -> list[Tensor]:
        parts = []
        if source is not None:
            lines = len(ids) if ids is not None else source.num_rows
            parts.append(self.queries.expand(lines, -1, -1))
        if ids is not None:
            parts.append(self.tokens(ids) + self.positions.weight[: ids.shape[1]])
        return parts


def beside_queries(mask: Tensor, num_queries: int) -> Tensor:
    """For queries and text that all see each other: the text's mask `(lines, tokens)`, false at padding ->
    `(lines, 1, 1, queries + tokens)`."""
    return F.pad(mask, (num_queries, 0), value=True)[:, None, None, :]
