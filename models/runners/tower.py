"""The runner of a tower: pictures to features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.base import Features, ImageInput, Input, Item, Op, Preprocessing
from models.device import on_device, to_device
from models.layers.vit import ViT
from models.runners.unit import UnitRunner

MOST_COMPILED = 200  # sizes of all towers; torch's own limit of all that it compiles is 256


class TowerRunner(UnitRunner):
    """Encodes; it holds one copy of a tower for every checkpoint that has it."""

    def __init__(self, unit: str, tower: ViT, device: torch.device) -> None:
        super().__init__(unit)
        self._tower: Callable[[Tensor], Tensor] = tower
        self._device = device
        self._config = tower.config
        self._sizes: tuple[int, ...] = ()  # of batches, where others would have to be compiled first; empty: any

    @on_device
    def compile(self, max_batch_size: int) -> None:
        """Let torch.compile make the tower faster, for batches of 1, 2, 4, ... pictures: every size is compiled now,
        none while a request waits. Raises what the compiler does."""
        self._tower = torch.compile(self._tower, dynamic=False)
        self._sizes = tuple(2**power for power in range(max_batch_size.bit_length()))
        size = self._config.image_size
        # Beyond its limit, which all towers share, the compiler would give up without a word.
        with torch._dynamo.config.patch(recompile_limit=MOST_COMPILED, fail_on_recompile_limit_hit=True):
            for number in self._sizes:
                self._tower(torch.zeros(number, 3, size, size, device=self._device))

    def prepare(self, request: Input) -> Item:
        assert isinstance(request, ImageInput)
        return Item(Op.ENCODE, None, preprocess(request.image, request.preprocessing))

    @on_device
    def encode(self, batch: Sequence[Item]) -> list[Features]:
        pixels = to_device(torch.stack([item.payload for item in batch]), self._device)
        # A copy of each: a view would keep the features of the whole batch in memory as long as one of them.
        return [features.clone() for part in self._parts(pixels) for features in self._tower(part)]

    def _parts(self, pixels: Tensor) -> Sequence[Tensor]:
        """The batch, in parts of sizes that are compiled: 7 are 4 and 2 and 1."""
        left, numbers = len(pixels), list[int]()
        for size in reversed(self._sizes):
            numbers += [size] * (left // size)
            left %= size
        return torch.split(pixels, numbers) if numbers else [pixels]


def preprocess(image: Image.Image, how: Preprocessing) -> Tensor:
    """An RGB picture -> normalised pixels `(3, size, size)`, as the authors' torchvision Resize of a PIL picture."""
    resized = image.resize((how.image_size, how.image_size), Image.Resampling.BICUBIC)
    # In numpy: torch would give each CPU thread a team of threads of its own.
    values = np.array(resized, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
    mean, std = (np.array(numbers, dtype=np.float32)[:, None, None] for numbers in (how.mean, how.std))
    return torch.from_numpy(np.ascontiguousarray((values - mean) / std))
