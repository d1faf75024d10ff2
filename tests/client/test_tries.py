"""When another try is made, and how long before it: policy alone."""

from __future__ import annotations

import pytest

from blip_client import AnswerError, BlipError, ProblemError, Retrying, UnreachableError

POLICY = Retrying()
BROKEN = UnreachableError("no connection")
SLOW = UnreachableError("no answer", timed_out=True)


def problem(status: int, retry_after: float | None = None) -> ProblemError:
    return ProblemError(status, "/errors/x", "x", "1", retry_after)


@pytest.mark.parametrize("status", [429, 503])
def test_what_is_full_is_asked_again_when_it_says_so_and_a_little_later(status: int) -> None:
    assert POLICY.wait_seconds([problem(status, 4)], draw=0) == 4
    assert POLICY.wait_seconds([problem(status, 4)], draw=0.5) == 5
    assert POLICY.wait_seconds([problem(status, 0)], draw=0.5) == 0.25  # at once, but not all at once
    assert POLICY.wait_seconds([problem(status, 4)] * 5, draw=0) == 4


def test_what_wants_to_be_left_alone_for_long_is() -> None:
    assert POLICY.wait_seconds([problem(503, 61)], draw=0) is None
    assert Retrying(longest_wait_seconds=100).wait_seconds([problem(503, 61)], draw=0) == 61


@pytest.mark.parametrize("error", [BROKEN, problem(503), problem(429)])
def test_without_a_time_each_wait_is_twice_as_long(error: BlipError) -> None:
    waits = [POLICY.wait_seconds([error] * number, draw=0) for number in range(1, 6)]
    assert waits == [0.25, 0.5, 1, 2, 4]
    assert POLICY.wait_seconds([error], draw=0.5) == 0.375
    assert Retrying(20).wait_seconds([error] * 20, draw=0) == 30  # half of the longest


@pytest.mark.parametrize("error", [problem(504), problem(502), SLOW])
def test_what_took_too_long_is_tried_once_more(error: BlipError) -> None:
    assert POLICY.wait_seconds([error], draw=0) == 0.25
    assert POLICY.wait_seconds([problem(429, 1), error], draw=0) == 0.5
    assert POLICY.wait_seconds([error, error], draw=0) is None
    assert POLICY.wait_seconds([SLOW, problem(429, 1), error], draw=0) is None


@pytest.mark.parametrize("error", [*map(problem, (301, 400, 401, 404, 413, 415, 422, 500, 501)), AnswerError("html")])
def test_what_would_be_so_again_is_not_tried_again(error: BlipError) -> None:
    assert POLICY.wait_seconds([error], draw=0) is None
    assert POLICY.wait_seconds([BROKEN, error], draw=0) is None


@pytest.mark.parametrize("error", [BROKEN, problem(429, 1), problem(504)])
@pytest.mark.parametrize("retries", [0, 2])
def test_there_is_an_end(error: BlipError, retries: int) -> None:
    errors = [*[BROKEN] * retries, error]
    assert Retrying(retries).wait_seconds(errors, draw=0) is None
    assert Retrying(retries + 1).wait_seconds(errors, draw=0) is not None
