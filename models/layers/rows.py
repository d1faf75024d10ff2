"""Keys and values of rows that stay where they are: each row's own, held by whoever looks at them, never copied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import torch
from torch import Tensor

from models.layers.attention import KeyValue, Lines, Source, merge_heads, split_heads

Layers = Sequence[KeyValue]  # of one row: one for each layer, `(1, heads, tokens, size)`


class Apart(KeyValue):
    """Of one layer, with rows of equally many tokens. One attention call for each image: on CPUs, where an image's keys
    and values are megabytes, that takes less than to keep those of all rows side by side while rows come and go.

    As a `KeyValue` it is its first row."""

    rows: Sequence[KeyValue]

    @classmethod
    def of(cls, rows: Sequence[KeyValue]) -> Self:
        apart = cls(*rows[0])
        apart.rows = rows
        return apart

    @property
    def num_rows(self) -> int:
        return len(self.rows)

    def attend(
        self, query: Tensor, mask: Tensor | None = None, lines: Lines | None = None, scale: float | None = None
    ) -> Tensor:
        assert mask is None, "all of its tokens may be looked at"
        if lines is None:
            lines = Lines(len(self.rows), len(query) // len(self.rows))
        by_row = lines.by_row(query)  # (rows, tokens, width)
        mixed = torch.empty_like(by_row)
        for numbers in self._rows_of_images():
            own = by_row[numbers].flatten(0, 1)[None]  # of all rows about one image
            row = self.rows[numbers[0]].as_precise_as(own)
            found = merge_heads(row.mix(split_heads(own, self.key.shape[1]), None, scale))
            mixed[numbers] = found.view(len(numbers), *by_row.shape[1:])
        return lines.by_line(mixed, query.shape[1])

    def _rows_of_images(self) -> Iterable[list[int]]:
        """Their numbers, those about one image together."""
        images: dict[int, list[int]] = {}
        for number, row in enumerate(self.rows):
            images.setdefault(id(row), []).append(number)
        return images.values()


def owned(layers: Layers, exact: torch.dtype) -> Layers:
    """A copy that holds nothing else, in the order in which attention reads it: with heads that lie apart, a step's
    attention takes two thirds longer. `exact`: the dtype of what would be float32."""

    def copy(part: Tensor) -> Tensor:
        dtype = exact if part.dtype == torch.float32 else part.dtype
        return torch.empty(part.shape, dtype=dtype, device=part.device).copy_(part)

    return [KeyValue(copy(key), copy(value)) for key, value in layers]


def source_of(rows: Sequence[Layers], lines: Lines | None = None) -> Source:
    """What each row's lines look at. On a CPU the rows stay apart; elsewhere one call for all of them is faster."""
    layers = list(zip(*rows, strict=True))
    if rows[0][0].key.is_cpu:
        return Source([Apart.of(layer) for layer in layers], lines=lines)
    return Source([KeyValue(*map(torch.cat, zip(*layer, strict=True))) for layer in layers], lines=lines)


def rows_of(source: Source) -> list[Layers] | None:
    """The inverse, where they are apart; else None."""
    if not all(isinstance(layer, Apart) for layer in source.layers):
        return None
    return list(zip(*(layer.rows for layer in source.layers if isinstance(layer, Apart)), strict=True))


class RowsApart:
    """What rows look at where nothing of it is copied: a row that joins is one more in a list."""

    def __init__(self) -> None:
        self._rows: list[Layers] = []

    def look_at(self, source: Source) -> None:
        rows = rows_of(source)
        assert rows is not None, "they stay apart"
        self._rows += rows

    def source(self, lines: Lines) -> Source:
        return source_of(self._rows, lines)

    def row(self, number: int) -> Source:
        return source_of(self._rows[number : number + 1])

    def keep(self, numbers: Sequence[int]) -> None:
        self._rows = [self._rows[number] for number in places_of(numbers)]

    def shrink(self) -> None:
        """It has no room to spare."""


def places_of(numbers: Sequence[int]) -> list[int]:
    """The rows that stay: where some left, the last have taken their places."""
    order, staying = list(range(len(numbers))), set(numbers)
    holes = [number for number in order if number not in staying]
    for hole, last in zip(holes, sorted(number for number in numbers if number >= len(order)), strict=True):
        order[hole] = last
    return order
