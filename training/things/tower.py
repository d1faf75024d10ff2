"""The tower's own lesson, before any text and beside it: which things a picture shows, and which is on each patch.
(The paper's tower has learned to classify pictures too; the patches give as many lessons more as there are patches.)"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.linear import Head
from training.data import normalise
from training.network import PreTraining, initialise
from training.things.data import UNTOLD, TowerBatch


class Taught(nn.Module):
    """`trained`, and two heads over its tower and final norm that nothing else uses."""

    def __init__(self, trained: PreTraining, num_things: int) -> None:
        super().__init__()
        width = trained.design.tower.width
        self.trained = trained
        self.heads = nn.ModuleDict({"picture": Head(width, num_things), "patch": Head(width, 1 + num_things)})
        initialise(self.heads)

    def loss(self, batch: TowerBatch) -> Tensor:
        return self.loss_of(self.trained.see(normalise(batch.pixels)), batch)

    def loss_of(self, seen: Tensor, batch: TowerBatch) -> Tensor:
        """Of what the tower makes of the batch: (n, tokens, width)."""
        patches = self.heads["patch"](seen[:, 1:]).flatten(0, 1)
        per_patch = F.cross_entropy(patches, batch.patches.flatten(), ignore_index=UNTOLD)
        return F.cross_entropy(self.heads["picture"](seen[:, 0]), batch.things) + per_patch

    @torch.no_grad()
    def named(self, pixels: Tensor) -> Tensor:
        """The number of the thing that each picture shows most of: (n,)."""
        return self.heads["picture"](self.trained.see(normalise(pixels))[:, 0]).argmax(1)
