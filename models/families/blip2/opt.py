"""OPT, a decoder-only language model. It takes embeddings, not ids: BLIP-2 puts an image's projected queries before
the text.

Source: Zhang et al. 2022; transformers models/opt/modeling_opt.py, which LAVIS runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.attention import KeyValue, Lines, Past, split_heads
from models.layers.linear import LayerNorm, Vocabulary
from models.layers.precision import Served
from models.weights import KeyMap, Tied

OPT_KEYS: KeyMap = (
    (r"^tokens\.", "embed_tokens."),
    (r"^positions\.", "embed_positions."),
    (r"^norm\.", "final_layer_norm."),
    (r"\.attention_norm\.", ".self_attn_layer_norm."),
    (r"\.(query|key|value)\.", lambda found: f".self_attn.{found[1][0]}_proj."),
    (r"\.out\.", ".self_attn.out_proj."),
    (r"\.mlp_norm\.", ".final_layer_norm."),
    (r"\.up\.", ".fc1."),
    (r"\.down\.", ".fc2."),
    (r"^", "language_model.model.decoder."),
)
OPT_TIED: Tied = {"language_model.model.decoder.embed_tokens.weight": ("language_model.lm_head.weight",)}

OFFSET = 2  # the first two rows of the position embedding are not used


@dataclass(frozen=True, slots=True)
class OPTConfig:
    vocabulary: int
    num_positions: int
    width: int
    num_layers: int
    num_heads: int
    mlp_width: int


class Layer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, config: OPTConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.attention_norm = LayerNorm(config.width)
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.mlp_norm = LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor, mask: Tensor, past: Past | None, lines: Lines | None) -> tuple[Tensor, KeyValue]:
        """`x`: `(lines, tokens, width)`. Returns the new `x` and the keys and values of past and present tokens."""
        query, *present = self.query_key_value(self.attention_norm(x)).chunk(3, -1)
        seen = KeyValue(*(split_heads(part, self.num_heads) for part in present))
        if past is not None:
            seen = past.followed_by(seen)
        x = x + self.out(seen.attend(query, mask, lines))
        return x + self.down(F.relu(self.up(self.mlp_norm(x)))), seen


class OPT(Served, Vocabulary):
    def __init__(self, config: OPTConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)  # tied: also the output matrix
        self.positions = nn.Embedding(config.num_positions + OFFSET, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = LayerNorm(config.width)

    def vocabulary(self) -> tuple[Vocabulary, Tensor, Tensor | None]:
        return self, self.tokens.weight, None

    @property
    def token_bytes(self) -> int:
        """KV-cache bytes of one token in all layers."""
        return 2 * self.config.num_layers * self.config.width * self.dtype.itemsize

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor,
        past: Sequence[Past] | None = None,
        lines: Lines | None = None,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Hidden states `(lines, tokens, width)` after the final norm, and every layer's keys and values.

        `x`: embeddings `(lines, tokens, width)`, of `self.tokens` or projected. `positions`: `(lines, tokens)`.
        `mask`: true where a token may look, broadcast to `(rows, 1, queries, past + tokens)`. `past`: the keys and
        values of earlier tokens, one for each layer. `lines`: which row of `past` each line has; None: each line its
        own."""
        x = (x + self.positions(positions + OFFSET)).to(self.dtype)
        kept: list[KeyValue] = []
        for index, layer in enumerate(self.layers):
            x, seen = layer(x, mask, past[index] if past is not None else None, lines)
            kept.append(seen)
        return self.norm(x), kept

    def logits(self, states: Tensor) -> Tensor:
        """`(..., width)` -> `(..., vocabulary)` float32."""
        return self.project(states, self.tokens.weight, None)
