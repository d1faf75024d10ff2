"""Texts about images, grouped so that nothing is computed twice for one image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor

from models.base import Item
from models.layers.attention import Lines

T = TypeVar("T")


class ImageGroups:
    """The items of a batch, grouped by image: each distinct image is projected once, and the texts about it are query
    positions of one attention call.

    `images`: features of the distinct images, `(images, tokens, width)`. `numbers`: the index of each item's image.
    `lines`: the items of each image, in the order of `sort`."""

    def __init__(self, batch: Sequence[Item]) -> None:
        distinct = {id(item.features): cast("Tensor", item.features) for item in batch}
        places = {key: number for number, key in enumerate(distinct)}
        self.images = torch.stack(list(distinct.values()))
        self.numbers = [places[id(item.features)] for item in batch]
        counts = [self.numbers.count(number) for number in range(len(distinct))]
        self.lines = Lines.of(counts, self.images.device)
        self._order = sorted(range(len(batch)), key=self.numbers.__getitem__)
        self._back = torch.tensor(self._order).argsort()

    def sort(self, rows: Sequence[T]) -> list[T]:
        """Reorder rows, one for each item, so that those of one image are side by side."""
        return [rows[index] for index in self._order]

    def unsort(self, lines: Tensor) -> Tensor:
        """From the order of `sort` back to that of the batch."""
        return lines[self._back.to(lines.device)]
