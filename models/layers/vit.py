"""The tower of BLIP and BLIP-2: a Vision Transformer without its final norm.

Source: Dosovitskiy et al. 2021; salesforce/BLIP models/vit.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.attention import attend, merge_heads, split_heads
from models.layers.linear import LayerNorm
from models.layers.tower import Tower
from models.weights import KeyMap

VIT_KEYS: KeyMap = (
    (r"^class_token$", "embeddings.class_embedding"),
    (r"^positions$", "embeddings.position_embedding"),
    (r"^patches\.", "embeddings.patch_embedding."),
    (r"^blocks\.", "encoder.layers."),
    (r"\.attention_norm\.", ".layer_norm1."),
    (r"\.qkv\.", ".self_attn.qkv."),
    (r"\.out\.", ".self_attn.projection."),
    (r"\.mlp_norm\.", ".layer_norm2."),
    (r"\.up\.", ".mlp.fc1."),
    (r"\.down\.", ".mlp.fc2."),
    (r"^", "vision_model."),
)


@dataclass(frozen=True, slots=True)
class ViTConfig:
    image_size: int  # pixels, square
    patch_size: int  # pixels, square
    width: int
    num_layers: int
    num_heads: int
    mlp_width: int
    norm_epsilon: float

    @property
    def num_tokens(self) -> int:
        """The patches of one image and the [CLS] token."""
        return (self.image_size // self.patch_size) ** 2 + 1


def vit_config(vision: Any, norm_epsilon: float) -> ViTConfig:
    """From a vision configuration of transformers, where BLIP and BLIP-2 name the sizes alike."""
    return ViTConfig(
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        width=vision.hidden_size,
        num_layers=vision.num_hidden_layers,
        num_heads=vision.num_attention_heads,
        mlp_width=vision.intermediate_size,
        norm_epsilon=norm_epsilon,
    )


class Block(nn.Module):
    """A pre-norm transformer block: `(images, tokens, width)` -> the same shape."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.attention_norm = LayerNorm(config.width, eps=config.norm_epsilon)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.mlp_norm = LayerNorm(config.width, eps=config.norm_epsilon)
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            split_heads(part, self.num_heads) for part in self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        )
        x = x + self.out(merge_heads(attend(query, key, value)))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class ViT(Tower):
    """Patch embedding and blocks. The final norm belongs to a checkpoint, not to the tower."""

    config: ViTConfig

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.patches = nn.Conv2d(3, config.width, kernel_size=config.patch_size, stride=config.patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.positions = nn.Parameter(torch.zeros(1, config.num_tokens, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels `(images, 3, size, size)` -> features `(images, tokens, width)`, before the final norm."""
        x = self.patches(pixels.to(self.patches.weight.dtype)).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)
        x = x + self.positions.to(x.dtype)
        for block in self.blocks:
            x = block(x)
        return x
