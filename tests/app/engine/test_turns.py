"""How waiting work and generations share the device: the rule, with made-up seconds."""

from __future__ import annotations

import pytest

from app.engine.batching import BatchKey, Kind
from app.engine.turns import CALL_SECONDS, STEP_SHARE, Rates, Turns
from models.base import Op

ENCODE, SCORE = BatchKey("tower", Op.ENCODE, None), BatchKey("heads", Op.SCORE, "itm")


def shares(turns: Turns, call_seconds: float, step_seconds: float) -> float:
    """The steps' part of the device's time, under a burst of calls."""
    called = stepped = 0.0
    for _ in range(1000):
        if turns.is_for_steps():
            turns.stepped(step_seconds)
            stepped += step_seconds
        else:
            turns.called(ENCODE, 1, call_seconds)
            called += call_seconds
    return stepped / (called + stepped)


def test_waiting_work_is_first() -> None:
    assert not Turns().is_for_steps()


def test_a_burst_of_calls_leaves_running_generations_their_share() -> None:
    assert shares(Turns(), call_seconds=1.0, step_seconds=0.01) == pytest.approx(STEP_SHARE, rel=0.05)


def test_every_call_is_followed_by_a_token_however_long_that_takes() -> None:
    assert shares(Turns(), call_seconds=0.1, step_seconds=0.1) == pytest.approx(1 / 2, rel=0.01)


def test_a_call_waits_for_no_more_than_a_token_when_nothing_is_owed() -> None:
    turns = Turns()
    for _ in range(1000):
        turns.stepped(0.05)
    assert not turns.is_for_steps()


def test_what_was_owed_to_generations_that_ended_is_forgotten() -> None:
    turns = Turns()
    turns.called(ENCODE, 1, 100.0)
    assert turns.is_for_steps()
    turns.none_runs()
    assert not turns.is_for_steps()


def test_a_call_is_as_large_as_its_time_allows() -> None:
    turns = Turns()
    assert turns.most_items(ENCODE) == float("inf")
    turns.called(ENCODE, 4, CALL_SECONDS)
    assert turns.most_items(ENCODE) == 4
    assert turns.most_items(ENCODE._replace(part=7)) == 4  # of a failed batch
    assert turns.most_items(ENCODE._replace(shape="other")) == turns.most_items(SCORE) == float("inf")


def test_a_call_has_at_least_one_item() -> None:
    turns = Turns()
    turns.called(ENCODE, 1, 60.0)
    assert turns.most_items(ENCODE) == 1


def test_a_device_that_got_faster_is_noticed() -> None:
    turns = Turns()
    turns.called(ENCODE, 1, 1.0)
    for _ in range(50):
        turns.called(ENCODE, 1, CALL_SECONDS / 10)
    assert turns.most_items(ENCODE) == pytest.approx(10, rel=0.01)


# --- rates ---


def test_what_has_not_been_seen_is_guessed() -> None:
    assert Rates().seconds({ENCODE.kind: 3}, unseen=0.5) == 1.5


def test_an_item_takes_what_its_calls_took() -> None:
    rates = Rates()
    rates.spent(ENCODE.kind, 0.8)
    rates.finished(ENCODE.kind, 4)
    assert rates.seconds({ENCODE.kind: 10, SCORE.kind: 1}, unseen=1) == pytest.approx(2 + 1)


def test_what_items_are_of_is_told_apart() -> None:
    """A pair of a video, a pair and a label are one op of one unit."""
    text, pair, video = [Kind("heads", Op.SCORE, *what) for what in (("text",), ("pair",), ("pair", True))]
    rates = Rates()
    for kind, seconds in ((text, 0.01), (pair, 0.2), (video, 1.0)):
        rates.spent(kind, seconds)
        rates.finished(kind, 1)
    assert rates.seconds({text: 10}, unseen=0) == pytest.approx(0.1)
    assert rates.seconds({pair: 10, video: 1}, unseen=0) == pytest.approx(2 + 1)


def test_a_row_takes_all_its_steps() -> None:
    rates = Rates()
    for _ in range(10):
        rates.spent(SCORE.kind, 0.1)
    rates.finished(SCORE.kind, 2)
    assert rates.seconds({SCORE.kind: 1}, unseen=0) == pytest.approx(0.5)


def test_the_latest_seconds_count_most() -> None:
    rates = Rates()
    for seconds in (1.0, *[0.1] * 100):
        rates.spent(ENCODE.kind, seconds)
        rates.finished(ENCODE.kind, 1)
    assert rates.seconds({ENCODE.kind: 1}, unseen=0) == pytest.approx(0.1, rel=0.01)


def test_a_small_batch_is_not_taken_for_what_all_cost() -> None:
    rates = Rates()
    for number in [*[16] * 50, 1]:
        rates.spent(SCORE.kind, 0.01)
        rates.finished(SCORE.kind, number)
    assert rates.seconds({SCORE.kind: 1}, unseen=0) == pytest.approx(0.01 / 16, rel=0.05)
