"""The KV cache of rows in generation: entries stay where they are when rows join or leave, when beams are reordered,
and when a token is added. Only slots that have become too small, or much too large, are copied.

Each row has a slot. The tokens of all its lines lie side by side in it, those of dropped beams too, and a mask tells
each line which are its own: reordering beams changes only the mask. When a row leaves, the last row takes its slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.device import to_device
from models.layers.attention import KeyValue, Lines, Past, Source, padding_mask
from models.layers.rows import RowsApart, places_of, rows_of

TOKEN_BLOCK = 64  # slots of growing rows grow by this many tokens


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values of some rows, up to the last token of their prompt but without it.

    `past`: one `KeyValue` per layer, `(rows, heads, tokens, size)`, padded on the right. `lengths`: tokens of each row.
    `source`: what the cross-attention attends to, one row for each row, or None."""

    past: Sequence[KeyValue]
    lengths: Sequence[int]
    source: Source | None = None


def empty_prefix(source: Source, dtype: torch.dtype) -> Prefix:
    """No tokens yet, one row for each row of `source`, whose keys have the same shape as the decoder's own. `dtype`:
    the decoder's."""
    rows = source.num_rows
    past = [
        KeyValue(*(part.new_empty(rows, part.shape[1], 0, part.shape[3], dtype=dtype) for part in layer))
        for layer in source.layers
    ]
    return Prefix(past, [0] * rows, source)


@dataclass(frozen=True, slots=True)
class Step:
    """One token for each line: the input of a decoder. Entries are the contents of the slots, this token's included.

    `ids`, `positions`: `(lines, 1)`; positions in the text, from 0. `past`: one per layer. `mask`: true where a line
    may attend, `(rows, 1, width of lines, capacity)`. `distance`: each entry's position minus the current token's,
    `(rows, 1, capacity)`. `source`: what the cross-attention attends to, or None."""

    ids: Tensor
    positions: Tensor
    past: Sequence[Past]
    mask: Tensor
    distance: Tensor
    lines: Lines
    source: Source | None


class Cache:
    """The KV cache of one decoder's rows, in the order of their slots."""

    def __init__(self, prefix: Prefix, num_lines: Sequence[int]) -> None:
        device = prefix.past[0].key.device if prefix.past else torch.device("cpu")
        self._device = device
        self._own = Slots(TOKEN_BLOCK)
        self._source = None if prefix.source is None else Slots() if rows_of(prefix.source) is None else RowsApart()
        self._visible = torch.zeros(0, 1, 0, dtype=torch.bool, device=device)  # (rows, width of lines, capacity)
        self._positions = torch.zeros(0, 0, dtype=torch.long, device=device)  # (rows, capacity), in the text
        self._pending: list[int] = []  # entries that the current step adds to each row
        self.add(prefix, num_lines)

    def __len__(self) -> int:
        return len(self._own.lengths)

    def add(self, prefix: Prefix, num_lines: Sequence[int]) -> None:
        """Append rows, with this many lines each."""
        self._own.add(prefix.past, prefix.lengths)
        if self._source is not None and prefix.source is not None:
            self._source.look_at(prefix.source)
        known = torch.arange(max(prefix.lengths), device=self._device)
        lengths = torch.tensor(prefix.lengths, device=self._device)
        visible = (known < lengths[:, None])[:, None].expand(-1, max(num_lines), -1)
        self._visible = _stack(self._visible, visible)
        self._positions = _stack(self._positions, known.expand(len(lengths), -1))

    def keep(self, numbers: Sequence[int]) -> list[int]:
        """Keep only these rows. Returns the old number of the row in each slot."""
        order = self._own.keep(numbers)
        if self._source is not None:
            self._source.keep(numbers)
            self._source.shrink()
        rows = torch.tensor(order, dtype=torch.long, device=self._device)
        self._visible, self._positions = self._visible[rows], self._positions[rows]
        return order

    def step(self, ids: Sequence[Sequence[int]], positions: Sequence[int]) -> Step:
        """Give each line of each row its next token: per row, the `ids` of its lines and their one position.

        Complete only after `advance`, which tells which lines go on."""
        counts = [len(row) for row in ids]
        lengths = self._own.lengths
        self._own.reserve(max(map(sum, zip(lengths, counts, strict=True))))
        capacity = self._own.capacity
        fed = [
            (row, line, lengths[row] + line, token, position)
            for row, (tokens, position) in enumerate(zip(ids, positions, strict=True))
            for line, token in enumerate(tokens)
        ]
        row, line, entry, tokens, at = to_device(torch.tensor(fed).T.contiguous(), self._device)  # (lines,) each
        self._visible = F.pad(self._visible[:, : max(counts)], (0, capacity - self._visible.shape[-1]))
        self._positions = F.pad(self._positions, (0, capacity - self._positions.shape[-1]))
        self._visible[row, line, entry] = True
        self._positions[row, entry] = at
        self._pending = counts
        now = self._positions.new_tensor(positions)
        lines = Lines.of(counts, self._device)
        return Step(
            ids=tokens[:, None],
            positions=at[:, None],
            past=[_Places(layer, row, entry, len(self)) for layer in self._own.layers],
            mask=self._visible[:, None],
            distance=(self._positions - now[:, None])[:, None],
            lines=lines,
            source=self._look(lines),
        )

    def advance(self, parents: Sequence[Sequence[int]]) -> None:
        """Complete a step: for each row, the old line that each new line continues."""
        self._own.lengths = [length + count for length, count in zip(self._own.lengths, self._pending, strict=True)]
        width = max(map(len, parents))
        # Unused places copy line 0: a soft-max over nothing would be NaN.
        padded = [[*row, *[0] * (width - len(row))] for row in parents]
        index = to_device(torch.tensor(padded), self._device)[..., None]
        self._visible = self._visible.gather(1, index.expand(-1, -1, self._visible.shape[-1]))

    def row(self, number: int) -> Prefix:
        """One row alone, with all the tokens it has by now."""
        one, length = slice(number, number + 1), self._own.lengths[number]
        past = [KeyValue(key[one, :, :length], value[one, :, :length]) for key, value in self._own.layers]
        return Prefix(past, [length], None if self._source is None else self._source.row(number))

    def _look(self, lines: Lines) -> Source | None:
        return None if self._source is None else self._source.source(lines)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a step writes the keys and values of one layer: a `Past`."""

    slots: KeyValue
    row: Tensor  # (lines,)
    entry: Tensor  # (lines,)
    num_rows: int

    def followed_by(self, other: KeyValue) -> KeyValue:
        """`other`: `(lines, heads, 1, size)`. Returns the whole slots of all rows: the matrix products would
        have to copy a part of them."""
        for kept, present in zip(self.slots, other, strict=True):
            kept[self.row, :, self.entry] = present[:, :, 0]
        return KeyValue(self.slots.key[: self.num_rows], self.slots.value[: self.num_rows])


class Slots:
    """Keys and values of rows for all layers, `(slots, heads, capacity, size)` each; the rows are in the first slots.

    Their capacity grows in blocks of `block` entries."""

    def __init__(self, block: int = 1) -> None:
        self._block = block
        self.layers: list[KeyValue] = []
        self.lengths: list[int] = []  # the entries of each row

    @property
    def capacity(self) -> int:
        return self.layers[0].key.shape[2] if self.layers else 0

    def add(self, layers: Sequence[KeyValue], lengths: Sequence[int]) -> None:
        first = len(self.lengths)
        self.lengths += lengths
        if not self.layers:
            self.layers = [KeyValue(key[:0], value[:0]) for key, value in layers]
        self.reserve(max(self.lengths))
        for kept, joining in zip(self.layers, layers, strict=True):
            tokens = joining.key.shape[2]
            for slots, new in zip(kept, joining, strict=True):
                slots[first : len(self.lengths), :, :tokens] = new
                slots[first : len(self.lengths), :, tokens:] = 0  # masked, but a NaN would still spoil a row

    def look_at(self, source: Source) -> None:
        """Add its rows."""
        self.add(source.layers, _lengths(source))

    def source(self, lines: Lines) -> Source:
        """All rows, for their lines to look at."""
        rows, lengths, capacity = len(self.lengths), self.lengths, self.capacity
        layers = [KeyValue(key[:rows], value[:rows]) for key, value in self.layers]
        if min(lengths) == capacity:
            return Source(layers, lines=lines)
        device = layers[0].key.device
        mask = torch.arange(capacity, device=device) < torch.tensor(lengths, device=device)[:, None]
        return Source(layers, padding_mask(mask), lines)

    def row(self, number: int) -> Source:
        one, tokens = slice(number, number + 1), self.lengths[number]
        return Source([KeyValue(key[one, :, :tokens], value[one, :, :tokens]) for key, value in self.layers])

    def shrink(self) -> None:
        """Give back what the rows that left had."""
        self.reserve(max(self.lengths, default=0))

    def keep(self, numbers: Sequence[int]) -> list[int]:
        """Keep only these rows: the last of them move into the slots of those that leave. Returns as `Cache.keep`."""
        order = places_of(numbers)
        for hole, last in enumerate(order):
            if hole == last:
                continue
            for layer in self.layers:
                for slots in layer:
                    slots[hole, :, : self.lengths[last]] = slots[last, :, : self.lengths[last]]
                    slots[hole, :, self.lengths[last] :] = 0  # what was there may be NaN
        self.lengths = [self.lengths[number] for number in order]
        return order

    def reserve(self, tokens: int) -> None:
        """Make room for all rows with this many tokens each, and at most about twice that, as attention computes over
        all entries. One layer after another, so that only one exists twice."""
        if not self.layers:
            return
        slots, _, capacity, _ = self.layers[0].key.shape
        needed = _rounded(tokens, self._block)
        rows = len(self.lengths)
        enough_capacity = capacity if needed <= capacity <= 2 * needed else needed
        enough_slots = slots if rows <= slots <= 2 * rows else rows + rows // 2  # so that the next few copy nothing
        if (enough_slots, enough_capacity) == (slots, capacity):
            return
        for number, layer in enumerate(self.layers):
            self.layers[number] = KeyValue(*(_resized(old, enough_slots, enough_capacity) for old in layer))


def _lengths(source: Source) -> list[int]:
    rows, _, tokens, _ = source.layers[0].key.shape
    return [tokens] * rows if source.mask is None else source.mask.sum(-1).flatten().tolist()


def _resized(old: Tensor, slots: int, capacity: int) -> Tensor:
    """New slots are left uninitialised: `Slots.add` writes them."""
    kept, known = min(old.shape[0], slots), old.shape[2]
    new = old.new_empty(slots, old.shape[1], capacity, old.shape[3])
    new[:kept, :, :known] = old[:kept, :, :capacity]
    new[:kept, :, known:] = 0
    return new


def _rounded(number: int, block: int) -> int:
    return -(-number // block) * block


def _stack(first: Tensor, second: Tensor) -> Tensor:
    """Concatenate along the first dimension; the others are zero-padded at their ends."""
    shape = [max(sizes) for sizes in zip(first.shape[1:], second.shape[1:], strict=True)]
    return torch.cat([_filled(part, shape) for part in (first, second)])


def _filled(part: Tensor, shape: Sequence[int]) -> Tensor:
    filled = part.new_zeros(len(part), *shape)
    filled[(slice(None), *map(slice, part.shape[1:]))] = part
    return filled
