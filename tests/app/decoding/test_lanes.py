"""Which picture is decoded next, and by whom: without processes, and without an event loop."""

from __future__ import annotations

from app.decoding.lanes import Lanes


def lanes(num_decoders: int) -> Lanes[str, int]:
    made = Lanes[str, int]()
    for decoder in range(num_decoders):
        made.free(decoder)
    return made


def assigned(our: Lanes[str, int]) -> list[tuple[str, int, bool]]:
    """Everything that can be, now."""
    found = []
    while (assignment := our.assign()) is not None:
        found.append((assignment.ticket, assignment.decoder, assignment.is_dear))
    return found


def test_in_order_to_whom_was_free_last() -> None:
    our = lanes(2)
    for ticket in "abc":
        our.add(ticket)
    assert assigned(our) == [("a", 1, False), ("b", 0, False)]
    assert (our.num_waiting, our.num_free) == (1, 0)
    our.free(1)
    assert assigned(our) == [("c", 1, False)]
    assert our.num_waiting == 0


def test_nothing_to_do_and_nobody_to_do_it() -> None:
    assert lanes(2).assign() is None
    our = lanes(0)
    our.add("a")
    assert our.assign() is None


def test_dear_pictures_leave_one_decoder_to_the_others() -> None:
    our = lanes(3)
    for ticket in "ABC":
        our.add_dear(ticket)
    assert assigned(our) == [("A", 2, True), ("B", 1, True)]
    assert our.num_with_dear == 2
    our.add("a")
    assert assigned(our) == [("a", 0, False)]
    our.free(0)
    assert assigned(our) == []
    our.free(2)
    assert assigned(our) == [("C", 2, True)]


def test_dear_pictures_have_one_decoder_while_cheap_ones_wait() -> None:
    our = lanes(3)
    for ticket in "AB":
        our.add_dear(ticket)
    for ticket in "abcd":
        our.add(ticket)
    assert assigned(our) == [("A", 2, True), ("a", 1, False), ("b", 0, False)]
    our.free(1)
    assert assigned(our) == [("c", 1, False)]
    our.free(2)
    assert assigned(our) == [("B", 2, True)]


def test_a_picture_that_turns_out_dear_goes_on_or_waits() -> None:
    our = lanes(2)
    for ticket in "AB":
        our.add(ticket)
    assert assigned(our) == [("A", 1, False), ("B", 0, False)]
    assert our.let_be_dear(1)
    assert not our.let_be_dear(0)
    assert our.let_be_dear(1), "it stays what it is"
    our.add_dear("B")
    our.free(0)
    assert assigned(our) == []
    our.free(1)
    assert assigned(our) == [("B", 1, True)]


def test_a_silent_decoder_gets_nothing_and_is_not_the_one_that_is_left() -> None:
    our = lanes(2)
    our.is_silent(0)
    our.add_dear("A")
    assert assigned(our) == []
    our.add("a")
    assert assigned(our) == [("a", 1, False)]
    our.answers(0)  # it has had a picture all the time
    assert our.num_free == 0
    our.free(1)
    assert assigned(our) == [("A", 1, True)]


def test_a_decoder_that_has_ended_is_forgotten() -> None:
    our = lanes(3)
    our.add_dear("A")
    assert assigned(our) == [("A", 2, True)]
    our.leave(2)
    assert our.num_with_dear == 0
    our.leave(1)
    our.add_dear("B")
    assert assigned(our) == []
    our.free(3)  # its successor
    assert assigned(our) == [("B", 3, True)]


def test_back_again_is_first_and_who_left_is_not_there() -> None:
    our = lanes(0)
    for ticket in "abc":
        our.add(ticket)
    our.add_first("x")
    our.discard("b")
    our.add_dear("D")
    our.discard("D")
    for decoder in range(4):
        our.free(decoder)
    assert [ticket for ticket, _, _ in assigned(our)] == ["x", "a", "c"]
