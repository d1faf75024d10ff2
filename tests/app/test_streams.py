"""Answers that are sent while they are made: what they say, how they fail, and what becomes of those nobody reads."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from app.errors import DrainingError
from app.wire.openai.answers import Chunk
from models.fake.runner import Call, Fault
from tests.app.conftest import Shared
from tests.app.support import Connection, Lab, entered, lab, run, until, waiting
from tests.app.test_chat import CHAT, COLOUR, refused, talk

JSON = {"content-type": "application/json"}
GREEDY: dict[str, Any] = {"num_beams": 1, "stream": True}


def events(text: str) -> list[Any]:
    """The chunks of a whole stream."""
    *chunks, done, nothing = text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    read = [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]
    for chunk in read:
        assert TypeAdapter(Chunk).validate_python(chunk, strict=True) == chunk
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in read}) == 1
    return read


def stream(shared: Shared, body: dict[str, Any]) -> list[Any]:
    response = shared.post(CHAT, json=body | {"stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream"
    return events(response.text)


def texts(chunks: list[Any], number: int = 1) -> list[str]:
    """What each choice says in the end."""
    told = [""] * number
    for chunk in chunks:
        for choice in chunk["choices"]:
            told[choice["index"]] += choice["delta"].get("content", "")
    return told


def pieces(chunks: list[Any]) -> list[str]:
    return [one["delta"]["content"] for chunk in chunks for one in chunk["choices"] if "content" in one["delta"]]


# --- what it says ---


@pytest.mark.parametrize(
    ("options", "number", "several"),
    [
        ({"num_beams": 1}, 1, True),
        ({"temperature": 1, "seed": 3}, 1, True),
        ({"temperature": 1, "seed": 3, "n": 3}, 3, True),
        ({"num_beams": 1, "max_tokens": 2}, 1, True),
        ({"num_beams": 1, "stop": "pict"}, 1, True),
        ({"num_beams": 1, "stop": ["d pi"]}, 1, True),
        ({"num_beams": 1, "stop": "a"}, 1, False),
        ({}, 1, False),
        ({"n": 2}, 2, False),
    ],
)
def test_a_stream_says_what_an_answer_at_once_does(
    shared: Shared, options: dict[str, Any], number: int, several: bool
) -> None:
    """Token by token where it is greedy or sampled; of beams, which compete, in one piece each."""
    body = talk(**options)
    whole = shared.post(CHAT, json=body).json()
    chunks = stream(shared, body)
    assert texts(chunks, number) == [one["message"]["content"] for one in whole["choices"]]
    assert (len(pieces(chunks)) > number) is several
    ends = [one for chunk in chunks for one in chunk["choices"] if one["finish_reason"]]
    assert [one["index"] for one in ends] == list(range(number))
    for end, choice in zip(ends, whole["choices"], strict=True):
        assert (end["finish_reason"], end["blip"]) == (choice["finish_reason"], choice["blip"])
    roles = [one["index"] for chunk in chunks for one in chunk["choices"] if "role" in one["delta"]]
    assert sorted(roles) == list(range(number))
    assert all("usage" not in chunk for chunk in chunks)


def test_usage_where_it_is_asked_for(shared: Shared) -> None:
    body = talk(COLOUR)
    *others, last = stream(shared, body | {"stream_options": {"include_usage": True}})
    assert (last["choices"], last["usage"]) == ([], shared.post(CHAT, json=body).json()["usage"])
    assert all(chunk["usage"] is None for chunk in others)


def test_candidates_and_questions_stream_too(shared: Shared) -> None:
    assert texts(stream(shared, talk(COLOUR, candidates=["blue", "red"]))) == ["red"]
    assert texts(stream(shared, talk(COLOUR, num_beams=1))) == ["red"]
    assert {chunk["model"] for chunk in stream(shared, {"messages": talk()["messages"]})} == {"fake"}


# --- while it is made ---


def begin(there: Lab, **fields: Any) -> Connection:
    connection = Connection(there.app, CHAT, JSON)
    connection.send(json.dumps(talk(**GREEDY) | fields).encode())
    return connection


def sent(connection: Connection) -> str:
    return b"".join(message.get("body", b"") for message in connection.sent).decode()


async def has_sent(connection: Connection, word: str) -> None:
    async def so() -> bool:
        return word in sent(connection)

    await until(so)


def test_each_word_is_sent_when_it_is_there() -> None:
    async def test() -> None:
        async with lab() as there:
            with there.heads.held() as hold:
                connection = begin(there)
                await entered(hold)  # the start of the generation
                hold.let_one_go()
                for word in ("a", "red", "picture"):
                    await entered(hold)  # a step
                    assert f'{word}"}}' not in sent(connection)
                    hold.let_one_go()
                    await has_sent(connection, f'{word}"}}')
                assert "[DONE]" not in sent(connection)
            await connection.task
            assert texts(events(sent(connection))) == ["a red picture"]

    run(test)


def test_who_leaves_a_stream_leaves_the_generation_and_the_others_go_on() -> None:
    async def test() -> None:
        async with lab() as there:
            await there.ask("/caption")
            with there.heads.held() as hold:
                leaving, staying = begin(there, min_new_tokens=50), begin(there, min_new_tokens=50)
                await entered(hold)
                hold.let_one_go()
                while max(there.heads.sizes("step"), default=0) < 2:
                    hold.let_one_go()
                    await entered(hold)
                hold.let_one_go()
                await has_sent(leaving, "content")
                leaving.leave()
                await leaving.task
            await staying.task
            assert there.heads.sizes("step")[-1] == 1
            assert texts(events(sent(staying)))[0].startswith("a red picture again")
            assert "[DONE]" not in sent(leaving)
            assert there.count("requests_total", task="caption", model="fake", code="499") == 1
            assert there.admission.ledger.bytes == 0
            assert not there.admission.ledger.unfinished

    run(test)


# --- what goes wrong ---


def failing_at(step: int) -> Any:
    """A device call: the step with this number."""
    seen = 0

    def when(call: Call) -> bool:
        nonlocal seen
        seen += call.method == "step"
        return call.method == "step" and seen >= step

    return when


def test_a_failure_before_the_first_word_has_a_status(shared: Shared) -> None:
    async def test() -> None:
        async with lab() as there:
            there.heads.fail(Fault.ERROR, failing_at(1))
            refused(await there.client.post(CHAT, json=talk(**GREEDY)), 500, "server_error")

    run(test)
    refused(shared.post(CHAT, json=talk(**GREEDY) | {"model": "x"}), 404, "not_found_error")
    refused(shared.post(CHAT, json=talk(n=9, **GREEDY)), 400, "invalid_request_error")


def last_event(text: str) -> Any:
    return json.loads(text.rstrip("\n").rpartition("\n\n")[2].removeprefix("data: "))


def test_a_failure_after_the_first_word_is_the_last_event() -> None:
    async def test() -> None:
        async with lab() as there:
            there.heads.fail(Fault.ERROR, failing_at(3))
            response = await there.client.post(CHAT, json=talk(**GREEDY))
            assert response.status_code == 200
            assert '"content":"a"' in response.text
            error = last_event(response.text)["error"]
            assert (error["type"], error["code"]) == ("server_error", "batch_failed")
            assert "[DONE]" not in response.text
            assert there.count("requests_total", task="caption", model="fake", code="500") == 1

    run(test)


def test_a_stream_has_a_deadline_to_its_end() -> None:
    async def test() -> None:
        async with lab() as there:
            await there.ask("/caption")
            with there.heads.held() as hold:
                connection = Connection(there.app, CHAT, JSON | {"x-request-timeout": "0.5"})
                connection.send(json.dumps(talk(**GREEDY)).encode())
                await entered(hold)
                hold.let_one_go()
                await entered(hold)
                hold.let_one_go()
                await connection.task
                assert last_event(sent(connection))["error"]["code"] == "deadline"
                assert connection.status == 200
            assert there.count("requests_total", task="caption", model="fake", code="504") == 1

    run(test)


def test_a_drain_that_is_over_tells_the_stream() -> None:
    async def test() -> None:
        async with lab() as there:
            with there.heads.held() as hold:
                connection = begin(there)
                await entered(hold)
                hold.let_one_go()
                await entered(hold)
                hold.let_one_go()
                await has_sent(connection, "content")
                there.admission.drain()
                there.admission.abort(DrainingError("The service is stopping."))
                await connection.task
                assert last_event(sent(connection))["error"]["code"] == "draining"

    run(test)


@pytest.mark.parametrize("options", [{}, {"temperature": 1, "seed": 3, "num_beams": None}])
def test_a_row_that_is_retried_tells_no_word_twice(options: dict[str, Any]) -> None:
    """Its batch fails in the middle, and it starts again."""
    failures = 0

    def second_step_of_several(call: Call) -> bool:
        nonlocal failures
        is_step = call.method == "step" and len(call.items) > 1
        failures += is_step
        return is_step and failures == 2

    async def test() -> None:
        async with lab() as there:
            [alone] = [(await there.client.post(CHAT, json=talk(**GREEDY | options))).text]
            with there.heads.held() as hold:
                first = begin(there, **options)
                await entered(hold)
                others = [begin(there, **options) for _ in range(3)]
                await waiting(there.service, 3)
                there.heads.fail(Fault.ERROR, second_step_of_several)
            for connection in (first, *others):
                await connection.task
                assert texts(events(sent(connection))) == texts(events(alone))
            assert there.count("batch_failures_total", unit="fake-heads", op="generate", kind="error") == 1

    run(test)


def test_a_sampled_stream_has_a_seed_so_that_a_retry_says_the_same(shared: Shared) -> None:
    shared.lab.heads.calls.clear()
    stream(shared, talk(temperature=1))
    assert shared.lab.heads.calls[0].payloads[0].settings.sampling.seed is not None


def test_many_streams_at_once_say_what_each_says_alone() -> None:
    async def test() -> None:
        async with lab() as there:
            bodies = [talk(temperature=1, seed=number % 4, n=1 + number % 2, stream=True) for number in range(32)]
            alone = [(await there.client.post(CHAT, json=body)).text for body in bodies]
            together = await asyncio.gather(*(there.client.post(CHAT, json=body) for body in bodies))
            for body, expected, response in zip(bodies, alone, together, strict=True):
                assert texts(events(response.text), body["n"]) == texts(events(expected), body["n"])
            assert max(there.heads.sizes("step")) > 1

    run(test)
