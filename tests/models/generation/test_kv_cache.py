"""The slots of rows in generation: they grow, are reused when rows leave, and hide what belongs to others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from models.generation.kv_cache import TOKEN_BLOCK, Cache, Prefix, Slots
from models.layers.attention import KeyValue, Lines, Source
from models.layers.rows import owned, rows_of, source_of

HEADS, SIZE = 2, 3


def keys(*rows: Sequence[float]) -> list[KeyValue]:
    """One layer; each number is a token."""
    length = max(map(len, rows))
    padded = torch.tensor([[*row, *[-1] * (length - len(row))] for row in rows], dtype=torch.float32)
    key = padded[:, None, :, None].expand(-1, HEADS, -1, SIZE)
    return [KeyValue(key, -key)]


def known(slots: Slots) -> list[list[float]]:
    """What each row holds; asserts that all heads, and the values, hold the same."""
    key, value = (held[: len(slots.lengths)] for held in slots.layers[0])
    torch.testing.assert_close(value, -key)
    assert (key == key[:, :1, :, :1]).all()
    return [key[row, 0, :length, 0].tolist() for row, length in enumerate(slots.lengths)]


def test_rows_that_leave_give_their_slots_to_the_last() -> None:
    slots = Slots(TOKEN_BLOCK)
    slots.add(keys([1, 2], [3]), [2, 1])
    slots.add(keys([4, 5, 6], [7], [8]), [3, 1, 1])
    assert known(slots) == [[1, 2], [3], [4, 5, 6], [7], [8]]
    assert slots.keep([1, 3, 4]) == [3, 1, 4]
    assert known(slots) == [[7], [3], [8]]
    slots.add(keys([9, 10]), [2])
    assert known(slots) == [[7], [3], [8], [9, 10]]
    assert slots.keep([]) == []


def test_room_grows_and_what_was_there_stays() -> None:
    slots = Slots(TOKEN_BLOCK)
    slots.add(keys([1, 2]), [2])
    slots.reserve(TOKEN_BLOCK + 1)
    slots.add(keys(*[[float(row)] for row in range(20)]), [1] * 20)
    assert known(slots) == [[1, 2], *[[float(row)] for row in range(20)]]
    assert not slots.layers[0].key[:21, :, 2:].any()  # masked, but it must be a number


def test_what_was_not_a_number_leaves_with_its_row() -> None:
    slots = Slots(TOKEN_BLOCK)
    slots.add(keys([float("nan")] * 3, [1]), [3, 1])
    slots.keep([1])
    assert slots.layers[0].key[0].isfinite().all()


def test_slots_that_nobody_needs_any_more_are_given_back() -> None:
    slots = Slots(TOKEN_BLOCK)
    slots.add(keys(*[[float(row)] for row in range(20)]), [1] * 20)
    slots.keep([18, 19])
    slots.reserve(1)
    assert len(slots.layers[0].key) <= 4
    assert sorted(known(slots)) == [[18], [19]]


def test_room_that_nobody_needs_any_more_is_given_back() -> None:
    slots = Slots(TOKEN_BLOCK)
    slots.add(keys([1, 2]), [2])
    slots.reserve(3 * TOKEN_BLOCK)
    assert slots.capacity == 3 * TOKEN_BLOCK
    slots.reserve(TOKEN_BLOCK)
    assert slots.capacity == TOKEN_BLOCK
    assert known(slots) == [[1, 2]]


def looks(cache: Cache, ids: Sequence[Sequence[int]], new: float) -> Tensor:
    """One step, in which all lines have the keys `new`: what each line sees, `(rows, width, entries)` of keys or -1."""
    step = cache.step(ids, [len(row) for row in ids])
    lines = sum(map(len, ids))
    present = torch.full((lines, HEADS, 1, SIZE), new, dtype=torch.float32)
    key, _ = step.past[0].followed_by(KeyValue(present, -present))
    return torch.where(step.mask[:, 0], key[:, :1, :, 0], -1.0)


def seen(entries: Tensor) -> list[float]:
    return [number for number in entries.tolist() if number >= 0]


def test_beams_share_their_rows_tokens_and_moving_copies_none() -> None:
    cache = Cache(Prefix(keys([1, 2], [3]), [2, 1]), [1, 1])
    first = looks(cache, [[0], [0]], 10)
    assert [seen(row[0]) for row in first] == [[1, 2, 10], [3, 10]]
    cache.advance([[0, 0], [0]])
    second = looks(cache, [[0, 0], [0]], 20)
    assert [seen(line) for line in second[0]] == [[1, 2, 10, 20]] * 2
    assert second[0, 0].tolist() != second[0, 1].tolist()  # each its own token
    cache.advance([[1, 1], [0]])
    third = looks(cache, [[0, 0], [0]], 30)
    assert third[0, 0, 3] == -1  # the token of the beam that was dropped
    assert third[0, 0, 4] == third[0, 1, 4] == 20
    assert seen(third[1, 0]) == [3, 10, 20, 30]


def test_a_row_that_moves_takes_its_lines_along() -> None:
    cache = Cache(Prefix(keys([1], [2], [3, 4]), [1, 1, 2]), [1, 1, 2])
    looks(cache, [[0], [0], [0, 0]], 10)
    cache.advance([[0], [0], [0, 1]])
    assert cache.keep([1, 2]) == [2, 1]
    after = looks(cache, [[0, 0], [0]], 20)
    assert [seen(line) for line in after[0]] == [[3, 4, 10, 20]] * 2
    assert seen(after[1, 0]) == [2, 10, 20]


def test_a_row_that_joins_sees_nothing_of_the_others() -> None:
    cache = Cache(Prefix(keys([1, 2, 3]), [3]), [1])
    looks(cache, [[0]], 10)
    cache.advance([[0]])
    cache.add(Prefix(keys([5]), [1]), [1])
    assert [seen(row[0]) for row in looks(cache, [[0], [0]], 20)] == [[1, 2, 3, 10, 20], [5, 20]]


def test_sources_of_many_lengths_are_masked() -> None:
    layers = keys([1, 2, 3], [4])
    mask = torch.tensor([[True, True, True], [True, False, False]])[:, None, None]
    cache = Cache(
        Prefix([KeyValue(layers[0].key[:, :, :0], layers[0].value[:, :, :0])], [0, 0], Source(layers, mask)), [1, 1]
    )
    source = cache.step([[0], [0]], [0, 0]).source
    assert source is not None
    assert source.mask is not None
    assert source.mask[:, 0, 0].tolist() == mask[:, 0, 0].tolist()
    cache.advance([[0], [0]])
    cache.keep([0])
    alone = cache.step([[0]], [1]).source
    assert alone is not None
    assert alone.mask is None
    assert alone.layers[0].key[0, 0, :, 0].tolist() == [1, 2, 3]


def test_what_rows_look_at_stays_where_it_is() -> None:
    images = [keys([number, number + 1]) for number in (1, 3, 5)]

    def joining(*numbers: int) -> Prefix:
        own = [KeyValue(*(torch.zeros(len(numbers), HEADS, 0, SIZE) for _ in range(2)))]
        return Prefix(own, [0] * len(numbers), source_of([images[number] for number in numbers]))

    def looked_at(num_rows: int) -> list[int]:
        """The image of each row."""
        source = cache.step([[0]] * num_rows, [0] * num_rows).source
        cache.advance([[0]] * num_rows)
        assert source is not None
        assert source.mask is None
        rows = rows_of(source)
        assert rows is not None
        return [next(number for number, one in enumerate(images) if row[0].key is one[0].key) for row in rows]

    cache = Cache(joining(0, 1), [1, 1])
    cache.add(joining(2, 1), [1, 1])
    assert looked_at(4) == [0, 1, 2, 1]
    assert cache.keep([1, 2, 3]) == [3, 1, 2]
    assert looked_at(3) == [1, 1, 2]
    cache.keep([])
    cache.add(joining(0), [1])
    assert looked_at(1) == [0]


@pytest.mark.parametrize("counts", [(2, 2, 2), (1, 3, 2)])
def test_rows_apart_are_attended_to_as_side_by_side(counts: tuple[int, ...]) -> None:
    rows = [[KeyValue(*torch.randn(2, 1, HEADS, 4, SIZE))] for _ in counts]
    together = KeyValue(*(torch.cat(parts) for parts in zip(*(layer for [layer] in rows), strict=True)))
    lines = Lines.of(counts, torch.device("cpu"))
    query = torch.randn(6, 2, HEADS * SIZE)
    [apart] = source_of(rows).layers
    assert apart.num_rows == together.num_rows == 3
    for scale in (None, 0.3):
        torch.testing.assert_close(
            apart.attend(query, lines=lines, scale=scale), together.attend(query, lines=lines, scale=scale)
        )
    torch.testing.assert_close(apart.attend(query), together.attend(query))


def test_what_is_kept_in_half_is_attended_to_in_the_precision_of_the_query() -> None:
    exact = [KeyValue(*torch.randn(2, 1, 4, HEADS, SIZE).transpose(2, 3))]
    [half] = [owned(exact, torch.float16)]
    query = torch.randn(2, 1, HEADS * SIZE)
    assert {part.dtype for part in half[0]} == {torch.float16}
    mixed = source_of([half]).layers[0].attend(query)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact[0].attend(query), atol=2e-3, rtol=0)


def test_a_copy_holds_nothing_else_and_other_dtypes_stay() -> None:
    whole = torch.randn(2, 3, 4, HEADS, SIZE)
    view = [KeyValue(*whole[:, :1].transpose(2, 3))]
    [(key, value)] = owned(view, torch.float32)
    assert torch.equal(key, view[0].key)
    assert key.is_contiguous()
    assert key.untyped_storage().nbytes() == value.untyped_storage().nbytes() == key.nbytes
    [(key, _)] = owned([KeyValue(key.bfloat16(), value.bfloat16())], torch.float16)
    assert key.dtype == torch.bfloat16


@pytest.mark.parametrize("counts", [(2, 2), (1, 3, 2)])
def test_lines_go_to_their_rows_and_back(counts: tuple[int, ...]) -> None:
    lines = Lines.of(counts, torch.device("cpu"))
    x = torch.arange(sum(counts) * 2 * 3.0).view(sum(counts), 2, 3)
    rows = lines.by_row(x)
    assert rows.shape == (len(counts), max(counts) * 2, 3)
    parts = torch.split(x, list(counts))
    for row, part in zip(rows, parts, strict=True):
        torch.testing.assert_close(row[: part.shape[0] * 2], part.reshape(-1, 3))
    torch.testing.assert_close(lines.by_line(rows, 2), x)
