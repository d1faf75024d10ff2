"""The evaluation's own bookkeeping; the service itself is evaluated by `make eval`."""

from __future__ import annotations

import asyncio

import httpx

from training.asking import Client, Tally
from training.captions import entails
from training.evaluate import generated_cases, is_held, public_cases, topic_of


def test_a_missed_goal_shows() -> None:
    name = "VQA: public questions"
    tally = Tally({name: 0.99})
    for number in range(100):
        tally.add(name, number > 1)
    assert "98.00%" in tally.table()
    assert "MISSED" in tally.table()
    assert not tally.all_met
    for _ in range(200):
        tally.add(name, True)
    assert tally.all_met
    assert not Tally({name: 0.99}).all_met


def test_another_dtype_may_lose_three_in_a_thousand() -> None:
    name = "VQA: public questions"

    def tally(right: int) -> dict[str, Tally]:
        return {"demo": Tally({name: 0.99}, {name: right}, {name: 1000})}

    assert is_held(tally(987), tally(990))
    assert is_held(tally(999), tally(990))
    assert not is_held(tally(986), tally(990))
    assert not is_held({"demo": Tally({name: 0.99})}, tally(990))


def test_dialogues_need_the_turn_before() -> None:
    dialogues = [case.dialogue for case in generated_cases(60) if case.dialogue]
    assert len(dialogues) > 10
    for turns in dialogues:
        assert len(turns) == 3
        assert all("one" in question or "it" in question for question, _ in turns[1:])


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
