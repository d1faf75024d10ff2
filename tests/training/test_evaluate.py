"""The evaluation's own bookkeeping; the service itself is evaluated by `make eval`."""

from __future__ import annotations

import asyncio

import httpx

from training.captions import entails
from training.evaluate import GOALS, Client, Tally, generated_cases, public_cases, topic_of


def test_a_missed_goal_shows() -> None:
    tally, name = Tally(), "VQA: public questions"
    for number in range(100):
        tally.add(name, number > 1)
    assert tally.share(name) < GOALS[name]
    assert "98.00%" in tally.table()
    assert "MISSED" in tally.table()


def test_the_other_caption_is_false() -> None:
    for case in public_cases(50) + generated_cases(30):
        assert not entails(case.other, case.scene)


def test_topics() -> None:
    assert topic_of("how many circles are there?") == "number"
    assert topic_of("what is above the red circle?") == "relation"
    assert topic_of("what color is it?") is None


def test_a_full_service_is_asked_again_and_a_failing_one_is_counted() -> None:
    statuses = iter([429, 200, 500])

    def respond(_: httpx.Request) -> httpx.Response:
        return httpx.Response(next(statuses), headers={"Retry-After": "0"}, json={"good": True})

    async def ask_twice() -> Client:
        async with httpx.AsyncClient(base_url="http://service", transport=httpx.MockTransport(respond)) as http:
            client = Client(http, "demo", concurrency=1)
            assert await client.ask("/caption", b"") == {"good": True}
            assert await client.ask("/caption", b"") is None
            return client

    client = asyncio.run(ask_twice())
    assert (client.requests, client.postponed, client.failed) == (2, 1, 1)
