"""Clients that are kept busy: what counts, and how much time each cell has."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import pytest

from bench import client
from bench.budget import Budget, span_of, works_needed
from bench.client import Done, Span, keep_busy, steady
from bench.contenders import Contender
from bench.workloads import Work, Workload, mix, text_works


def bursts(*moments: float) -> list[Done]:
    """Of two clients whose samples end together."""
    return [Done(moment, 1.0, 2) for moment in moments for _ in range(2)]


@pytest.mark.parametrize(
    ("span", "number", "elapsed"),
    [
        (Span(warm_seconds=1.5, seconds=3.5), 4, 2.0),
        (Span(warm_samples=2, samples=2), 2, 1.0),
        (Span(warm_samples=2, warm_seconds=9.0, samples=4), 4, 2.0),
        (Span(warm_samples=2, samples=3, burst=2), 2, 1.0),
        (Span(warm_samples=2, seconds=0.5, burst=2), 2, 1.0),
    ],
    ids=["by time", "by samples", "whichever is first", "whole bursts", "one burst at least"],
)
def test_what_counts_in_a_steady_state(span: Span, number: int, elapsed: float) -> None:
    turn = steady(bursts(1.0, 2.0, 3.0, 4.0), span)
    assert (len(turn.seconds), turn.elapsed, turn.num_answers) == (number, elapsed, 2 * number)


def test_one_sample_at_least_is_warm_up() -> None:
    turn = steady([Done(moment, 1.0, 1) for moment in (5.0, 6.0, 7.0)], Span(warm_seconds=1, seconds=7))
    assert (len(turn.seconds), turn.elapsed) == (2, 2.0)


def test_nothing_was_done() -> None:
    assert steady([], Span(warm_seconds=1, seconds=2)).seconds == []


def test_every_client_has_work_until_enough_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers when three clients wait."""
    waiting: list[asyncio.Event] = []

    async def ask(*_: object) -> None:
        waiting.append(asyncio.Event())
        if len(waiting) < 3:
            await waiting[-1].wait()
            return
        for event in waiting:
            event.set()
        waiting.clear()

    monkeypatch.setattr(client, "ask", ask)
    works = (Work("caption", number) for number in range(100))
    span = Span(warm_samples=3, samples=6, patience_seconds=0)
    turn = asyncio.run(keep_busy("http://test", "ours", works, 3, [], span))
    assert turn.num_answers == 6
    assert next(works).picture == 9 + turn.num_given_up


def test_what_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(_: object, __: object, work: Work, *___: object) -> None:
        if work.picture:
            await asyncio.Event().wait()

    monkeypatch.setattr(client, "ask", ask)
    works = (Work("caption", number) for number in (0, 1, 0, 0))
    span = Span(warm_samples=1, samples=1, patience_seconds=0)
    turn = asyncio.run(keep_busy("http://test", "ours", works, 2, [], span))
    assert (len(turn.seconds), turn.num_given_up) == (1, 1)


def test_a_failure_of_one_client_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(_: object, __: object, work: Work, *___: object) -> None:
        if work.picture:
            raise httpx.ReadError("gone")
        await asyncio.Event().wait()

    monkeypatch.setattr(client, "ask", ask)
    works = iter([Work("caption", 0), Work("caption", 1)])
    with pytest.raises(ExceptionGroup) as found:
        asyncio.run(keep_busy("http://test", "ours", works, 2, [], Span(samples=5)))
    assert [str(error) for error in found.value.exceptions] == ["gone"]


def test_a_budget_is_divided_among_what_is_left() -> None:
    now = [0.0]
    weights = [1.0, 4.0, 1.2]
    budget = Budget(62, weights, lambda: now[0])
    assert budget.share(weights[0]) == pytest.approx(10)
    now[0] = 20.0  # it took twice its share
    assert budget.share(weights[1]) == pytest.approx(42 * 4 / 5.2)
    now[0] = 70.0
    assert budget.share(weights[2]) == 0


ALIKE = Workload("alike", "texts/s", text_works)
OURS, LITSERVE = Contender("d", "ours", "fp32"), Contender("c", "litserve", "fp32")


def test_ours_counts_whole_rounds_of_its_clients_and_gives_up_at_once() -> None:
    span = span_of(100, OURS, 16, 60, replace(ALIKE, num_requests=5))
    assert (span.warm_samples, span.samples, span.burst, span.patience_seconds) == (16, 64, 16, 0)


@pytest.mark.parametrize(("clients", "num_requests", "burst"), [(16, 1, 8), (16, 5, 1), (1, 1, 1)])
def test_a_peer_counts_whole_batches_and_may_end_what_it_has(clients: int, num_requests: int, burst: int) -> None:
    span = span_of(100, LITSERVE, clients, 60, replace(ALIKE, num_requests=num_requests))
    assert (span.burst, span.warm_seconds, span.seconds + span.patience_seconds) == (burst, 30, 100)


@pytest.mark.parametrize("contender", [OURS, LITSERVE])
@pytest.mark.parametrize("clients", [1, 16])
def test_samples_that_differ_count_in_whole_cycles(contender: Contender, clients: int) -> None:
    span = span_of(100, contender, clients, 12, Workload("mix", "requests/s", mix, num_requests=7, cycle=10))
    assert (span.burst, span.samples) == (10, 20)
    assert works_needed(12, clients, cycle=10) >= 20 + 2 * clients


@pytest.mark.parametrize("contender", [OURS, LITSERVE])
def test_to_see_that_it_runs_a_few_samples_will_do(contender: Contender) -> None:
    span = span_of(100, contender, 16, 2, replace(ALIKE, cycle=10))
    assert (span.warm_samples, span.samples) == (2, 2)
    assert works_needed(2, 16) == 34  # each of the clients has work: one without would end the others
