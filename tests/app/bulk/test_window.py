"""Additive increase, multiplicative decrease."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from app.bulk.pacing import PacedTransport
from app.bulk.window import SHRINK, Window
from tests.app.support import run, until


def filled(window: Window) -> list[int]:
    tickets = []
    while window.has_room:
        tickets.append(window.send())
    return tickets


def answer_all(window: Window, tickets: list[int]) -> None:
    """Each makes room for the next one at once."""
    for ticket in tickets:
        window.answered(ticket)
        while window.has_room:
            window.send()


def test_it_doubles_until_the_service_refuses_and_then_grows_by_one() -> None:
    window = Window(most=100, first=4)
    answer_all(window, filled(window))
    assert window.size == 8
    window.refused(8)
    assert window.size == 8 * SHRINK
    answer_all(window, list(range(1, 8)))
    assert window.size == pytest.approx(8 * SHRINK + 1, abs=0.2)


def test_it_shrinks_once_for_all_that_were_sent_before() -> None:
    window = Window(most=64, first=16)
    for ticket in filled(window):
        window.refused(ticket)
    assert window.size == 16 * SHRINK
    window.refused(window.send())
    assert window.size == 16 * SHRINK**2


def test_a_lost_connection_takes_it_back_to_one() -> None:
    window = Window(most=64, first=16)
    for ticket in filled(window):
        window.lost(ticket)
    assert (window.size, window.in_flight, window.has_room) == (1, 0, True)
    for _ in range(50):
        window.refused(window.send())
    assert window.size == 1
    assert filled(window) == [67]


def test_it_never_grows_above_the_most_nor_while_it_is_not_filled() -> None:
    window = Window(most=8, first=4)
    for _ in range(10):
        window.answered(window.send())
    assert window.size == 4
    for _ in range(10):
        for ticket in filled(window):
            window.answered(ticket)
    assert window.size <= 8
    assert Window(most=2).size == 2


def test_each_try_waits_for_room_and_cancelled_ones_leave_theirs() -> None:
    async def test() -> None:
        gate, seen = asyncio.Event(), []

        async def answer(request: httpx.Request) -> httpx.Response:
            seen.append(request.url.path)
            await gate.wait()
            return httpx.Response(200)

        async def seen_and_waiting(num_seen: int, num_waiting: int) -> bool:
            return (len(seen), paced.num_waiting) == (num_seen, num_waiting)

        window = Window(most=1)
        paced = PacedTransport(httpx.MockTransport(answer), window, lambda: None)
        async with httpx.AsyncClient(transport=paced, base_url="http://test") as client:
            tasks = [asyncio.create_task(client.get(f"/{number}")) for number in range(4)]
            await until(lambda: seen_and_waiting(1, 3))
            tasks[1].cancel()  # as it waits
            tasks[0].cancel()  # in flight
            await until(lambda: seen_and_waiting(2, 1))
            tasks[2].cancel()
            gate.set()
            assert (await tasks[3]).status_code == 200
            await asyncio.gather(*tasks, return_exceptions=True)
        assert seen == ["/0", "/2", "/3"]
        assert window.in_flight == 0

    run(test)
