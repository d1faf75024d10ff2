"""The tower's own lesson, before any text: which things a picture shows, and which one is on each patch. (The paper's
tower has learned to classify pictures too; the patches give it as many lessons more as there are patches.)"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.linear import Head
from training.data import normalise
from training.network import PreTraining, initialise
from training.things.data import UNTOLD, TowerBatch


class Classifying(nn.Module):
    """The tower and final norm of `trained`, which learn, under two heads that nothing else uses."""

    def __init__(self, trained: PreTraining, num_things: int) -> None:
        super().__init__()
        width = trained.design.tower.width
        self.tower, self.norm = trained.tower, trained.vision_norm
        self.heads = nn.ModuleDict({"picture": Head(width, num_things), "patch": Head(width, 1 + num_things)})
        initialise(self.heads)

    def loss(self, batch: TowerBatch) -> Tensor:
        seen = self.see(batch.pixels)
        patches = self.heads["patch"](seen[:, 1:]).flatten(0, 1)
        per_patch = F.cross_entropy(patches, batch.patches.flatten(), ignore_index=UNTOLD)
        return F.cross_entropy(self.heads["picture"](seen[:, 0]), batch.things) + per_patch

    def see(self, pixels: Tensor) -> Tensor:
        """uint8 (n, side, side, 3) -> (n, tokens, width)"""
        seen: Tensor = self.norm(self.tower(normalise(pixels)))
        return seen

    @torch.no_grad()
    def named(self, pixels: Tensor) -> Tensor:
        """The number of the thing that each picture shows most of: (n,)."""
        return self.heads["picture"](self.see(pixels)[:, 0]).argmax(1)
