"""The key-value cache of rows in generation: selected, joined and padded as rows come and go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers import KeyValue, Source


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a decoder knows of its lines before their last token, aligned on the right.

    `past`: a `KeyValue` a layer, `(lines, heads, tokens, size)`. `mask`: `(lines, tokens)`, true where a line has a
    token. `source`: what the cross-attention looks at: one row for each row of lines, or None."""

    past: list[KeyValue]
    mask: Tensor
    source: Source | None

    def lines(self, index: Tensor) -> Prefix:
        """The lines at `index` `(n,)`, in that order; the source stays as it is."""
        past = [KeyValue(key[index], value[index]) for key, value in self.past]
        return replace(self, past=past, mask=self.mask[index])

    def rows(self, index: Tensor) -> Prefix:
        """The source rows at `index` `(n,)`; the lines stay as they are."""
        return replace(self, source=None if self.source is None else _select(self.source, index))

    def join(self, other: Prefix) -> Prefix:
        """The lines and rows of both, this one's first."""
        length = max(self.mask.shape[1], other.mask.shape[1])
        first, second = self._padded(length), other._padded(length)
        past = [_cat([a, b]) for a, b in zip(first.past, second.past, strict=True)]
        sources = [part.source for part in (first, second) if part.source is not None]
        return Prefix(past, torch.cat([first.mask, second.mask]), join_sources(sources) if sources else None)

    def _padded(self, length: int) -> Prefix:
        missing = length - self.mask.shape[1]
        if not missing:
            return self
        past = [KeyValue(*(F.pad(part, (0, 0, missing, 0)) for part in layer)) for layer in self.past]
        return replace(self, past=past, mask=F.pad(self.mask, (missing, 0)))


def empty_prefix(source: Source) -> Prefix:
    """Before the first token: a line for each row of `source`, whose keys have the shape of the decoder's own."""
    past = [KeyValue(key[:, :, :0], value[:, :, :0]) for key, value in source.layers]
    key = source.layers[0].key
    return Prefix(past, torch.zeros(len(key), 0, dtype=torch.bool, device=key.device), source)


def join_sources(sources: Sequence[Source]) -> Source:
    """The rows of all; shorter ones are padded on the right and masked."""
    length = max(source.layers[0].key.shape[2] for source in sources)
    layers = [
        _cat([_padded_right(layer, length) for layer in same])
        for same in zip(*(source.layers for source in sources), strict=True)
    ]
    if all(source.mask is None and source.layers[0].key.shape[2] == length for source in sources):
        return Source(layers)
    masks = [_mask(source) for source in sources]
    return Source(layers, torch.cat([F.pad(mask, (0, length - mask.shape[-1])) for mask in masks]))


def _padded_right(layer: KeyValue, length: int) -> KeyValue:
    missing = length - layer.key.shape[2]
    return KeyValue(*(F.pad(part, (0, 0, 0, missing)) for part in layer)) if missing else layer


def _select(source: Source, index: Tensor) -> Source:
    layers = [KeyValue(key[index], value[index]) for key, value in source.layers]
    return Source(layers, None if source.mask is None else source.mask[index])


def _mask(source: Source) -> Tensor:
    if source.mask is not None:
        return source.mask
    rows, _, tokens, _ = source.layers[0].key.shape
    return torch.ones(rows, 1, 1, tokens, dtype=torch.bool, device=source.layers[0].key.device)


def _cat(parts: Sequence[KeyValue]) -> KeyValue:
    return KeyValue(torch.cat([part.key for part in parts]), torch.cat([part.value for part in parts]))
