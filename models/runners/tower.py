"""The runner of a tower: pictures to features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.base import Features, ImageInput, Input, Item, Op
from models.device import on_device, to_device
from models.layers.tower import Tower
from models.runners.pixels import preprocess
from models.runners.unit import UnitRunner

MOST_COMPILED = 200  # batch sizes of all towers together; torch stops at 256 compilations of whatever kind


class TowerRunner(UnitRunner):
    """Encodes pictures; it holds one copy of a tower for all checkpoints that share it."""

    def __init__(self, unit: str, tower: Tower, device: torch.device) -> None:
        super().__init__(unit)
        self._tower: Callable[[Tensor], Tensor] = tower
        self._device = device
        self._sizes: tuple[int, ...] = ()  # the compiled batch sizes, ascending; empty: not compiled, any size

    @on_device
    def compile(self, max_batch_size: int, image_size: int) -> None:
        """Compile the tower for batches of 1, 2, 4, ... square pictures of `image_size` pixels. All sizes are compiled
        now, so that no request waits for it. Raises whatever the compiler does."""
        self._tower = torch.compile(self._tower, dynamic=False)
        self._sizes = tuple(2**power for power in range(max_batch_size.bit_length()))
        # Past its limit, which all towers share, the compiler would silently run uncompiled.
        with torch._dynamo.config.patch(recompile_limit=MOST_COMPILED, fail_on_recompile_limit_hit=True):
            for number in self._sizes:
                self._tower(torch.zeros(number, 3, image_size, image_size, device=self._device))

    def prepare(self, request: Input) -> Item:
        assert isinstance(request, ImageInput)
        return Item(Op.ENCODE, None, preprocess(request.image, request.preprocessing))

    @on_device
    def encode(self, batch: Sequence[Item]) -> list[Features]:
        pixels = to_device(torch.stack([item.payload for item in batch]), self._device)
        # Copies: a view would keep the whole batch's features in memory for as long as it lives.
        return [features.clone() for part in self._parts(pixels) for features in self._tower(part)]

    def _parts(self, pixels: Tensor) -> Sequence[Tensor]:
        """The batch, split into compiled sizes: 7 pictures are 4 + 2 + 1."""
        left, numbers = len(pixels), list[int]()
        for size in reversed(self._sizes):
            numbers += [size] * (left // size)
            left %= size
        return torch.split(pixels, numbers) if numbers else [pixels]
