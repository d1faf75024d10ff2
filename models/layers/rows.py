"""Keys and values of rows that stay where they are: each row's own, held by whoever looks at them, never copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from models.layers.attention import KeyValue, Lines, Source, merge_heads, split_heads

Layers = Sequence[KeyValue]  # of one row: one for each layer, `(1, heads, tokens, size)`


class Apart(KeyValue):
    """Of one layer, with rows of equally many tokens. One attention call for each row: on CPUs, where an image's keys
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
        queries = torch.split(split_heads(lines.by_row(query), self.key.shape[1]), 1)
        mixed = [row.mix(own, None, scale) for row, own in zip(self.rows, queries, strict=True)]
        return lines.by_line(merge_heads(torch.cat(mixed)), query.shape[1])


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
