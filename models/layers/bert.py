"""BERT's attention, which BLIP's MED and BLIP-2's Q-Former share: with cross-attention beside the self-attention.

Source: Devlin et al. 2019; salesforce/BLIP models/med.py."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from models.layers.attention import KeyValue, Lines, split_heads
from models.layers.precision import LayerNorm


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


class Attention(nn.Module):
    """Multi-head attention with BERT's post-norm residual."""

    def __init__(self, config: BertConfig, source_width: int) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(source_width, config.width)
        self.value = nn.Linear(source_width, config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm = LayerNorm(config.width, eps=config.norm_epsilon)

    def project(self, source: Tensor) -> KeyValue:
        """`(rows, tokens, source width)` -> keys and values."""
        return KeyValue(split_heads(self.key(source), self.num_heads), split_heads(self.value(source), self.num_heads))

    def forward(self, x: Tensor, source: KeyValue, mask: Tensor | None = None, lines: Lines | None = None) -> Tensor:
        """`x` `(lines, tokens, width)` -> the same shape, after residual and norm. `mask`: true where `x` may look,
        broadcast to `(rows, 1, queries, keys)`."""
        return self.norm(x + self.out(source.attend(self.query(x), mask, lines)))
