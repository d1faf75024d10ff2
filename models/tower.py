"""The runner of a tower: pictures to features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.base import Features, ImageInput, Input, Item, Op, Preprocessing
from models.device import on_device
from models.runner import UnitRunner
from models.text import to_device
from models.vit import ViT


class TowerRunner(UnitRunner):
    """Encodes; it holds one copy of a tower for every checkpoint that has it."""

    def __init__(self, unit: str, tower: ViT, device: torch.device) -> None:
        super().__init__(unit)
        self._tower = tower
        self._device = device

    def prepare(self, request: Input) -> Item:
        assert isinstance(request, ImageInput)
        return Item(Op.ENCODE, None, preprocess(request.image, request.preprocessing))

    @on_device
    def encode(self, batch: Sequence[Item]) -> list[Features]:
        pixels = to_device(torch.stack([item.payload for item in batch]), self._device)
        # A copy of each: a view would keep the features of the whole batch in memory as long as one of them.
        return [features.clone() for features in self._tower(pixels)]


def preprocess(image: Image.Image, how: Preprocessing) -> Tensor:
    """An RGB picture -> normalised pixels `(3, size, size)`, as the authors' torchvision Resize of a PIL picture."""
    resized = image.resize((how.image_size, how.image_size), Image.Resampling.BICUBIC)
    # In numpy: torch would give each CPU thread a team of threads of its own.
    values = np.array(resized, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
    mean, std = (np.array(numbers, dtype=np.float32)[:, None, None] for numbers in (how.mean, how.std))
    return torch.from_numpy(np.ascontiguousarray((values - mean) / std))
