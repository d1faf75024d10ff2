"""A service that is full, not there, or says no: nothing is lost, and nothing is asked for ever."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from app.bulk import run as running
from app.bulk import verdicts
from app.bulk.verdicts import Situation, StoppedError, verdict
from app.start.bulk import UsageError
from blip_client import AnswerError, BlipError, ProblemError, UnreachableError
from tests.app.bulk.support import Bulk, Scripted, pictures, problem

ASK = ("caption", "p", "--url", "http://test", "-o", "out.jsonl")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop turns in place of each wait."""
    waits_by(monkeypatch, lambda _: asyncio.sleep(0))


def waits_by(monkeypatch: pytest.MonkeyPatch, sleep: Callable[[float], Awaitable[None]]) -> None:
    """The client, before its next try, and the run, before it has the client begin again."""
    monkeypatch.setattr("blip_client.clients.asyncio", SimpleNamespace(sleep=sleep, to_thread=asyncio.to_thread))
    monkeypatch.setattr(running, "sleep", sleep)


def written() -> list[str]:
    return sorted(json.loads(line)["path"] for line in Path("out.jsonl").read_text().splitlines())


@pytest.mark.parametrize(
    "trouble",
    [
        lambda: problem(429, "queue-full", 1),
        lambda: problem(503, "not-ready", 5),
        lambda: httpx.ConnectError("refused"),
        lambda: httpx.RemoteProtocolError("left"),
    ],
)
def test_what_passes_costs_no_picture(scripted: Scripted, trouble: Callable[[], httpx.Response | Exception]) -> None:
    paths = pictures(Path("p"), [f"{number:02}.png" for number in range(30)])
    scripted.trouble = [trouble() for _ in range(5)]
    assert scripted(*ASK) == 0
    assert written() == sorted(map(str, paths))
    assert len(scripted.asked) == 35


def test_a_service_that_is_full_for_long_costs_no_picture(scripted: Scripted) -> None:
    """More refusals than a client has retries."""
    pictures(Path("p"), ["a.png"])
    scripted.trouble = [problem(429, "queue-full", 1) for _ in range(50)]
    assert scripted(*ASK) == 0
    assert written() == ["p/a.png"]


def test_a_service_that_is_full_for_ever_ends_the_run(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "PATIENCE_SECONDS", 0)
    pictures(Path("p"), ["a.png", "b.png"])
    scripted.trouble = [problem(503, "draining", 1) for _ in range(50)]
    assert scripted(*ASK) == 1
    assert "blip-serve: the service answers nothing: It is draining.\n" in scripted.err
    assert not Path("failures.jsonl").exists()  # no picture is at fault
    assert written() == []


def test_a_service_that_is_gone_ends_the_run(scripted: Scripted) -> None:
    pictures(Path("p"), [f"{number:02}.png" for number in range(30)])
    scripted.trouble = [httpx.ConnectError("refused") for _ in range(1000)]
    assert scripted(*ASK, "--retries", "2") == 1
    assert "blip-serve: the service cannot be reached: no answer from test" in scripted.err
    assert not Path("failures.jsonl").exists()


LOST = UnreachableError("reset")
FULL = ProblemError(429, "/errors/queue-full", "Full.")


@pytest.mark.parametrize(
    ("error", "now", "told"),
    [
        (FULL, Situation(99, False, False, 599), None),
        (FULL, Situation(1, False, True, 601), StoppedError("the service answers nothing: Full.")),
        (LOST, Situation(1, False, True, 599), None),  # it was there, and may be starting anew
        (LOST, Situation(0, False, True, 601), StoppedError("the service cannot be reached: reset")),
        (LOST, Situation(0, False, False, 0), StoppedError("the service cannot be reached: reset")),
        (LOST, Situation(0, False, True, 0, stopping=True), StoppedError("the service cannot be reached: reset")),
        (FULL, Situation(0, False, True, 0, stopping=True), FULL),
        (LOST, Situation(2, True, True, 0), None),
        (LOST, Situation(3, True, True, 0), LOST),  # others get through: this picture breaks each connection
        (UnreachableError("slow", timed_out=True), Situation(1, False, False, 0), UnreachableError("slow", True)),
        (ProblemError(422, "/errors/invalid-input", "No."), Situation(1, False, False, 0), UsageError("No.")),
        (ProblemError(404, "/errors/unknown-model", "No."), Situation(1, True, True, 0), UsageError("No.")),
        (AnswerError("Whose?"), Situation(1, False, False, 0), StoppedError("Whose?")),
        (AnswerError("Whose?"), Situation(1, True, True, 0), AnswerError("Whose?")),
    ],
)
def test_whose_fault_it_is(error: BlipError, now: Situation, told: Exception | None) -> None:
    found = verdict(error, now)
    assert (type(found), str(found)) == (type(told), str(told))


def test_what_the_options_would_have_made_fail_fails_alone_once_one_was_answered() -> None:
    error = ProblemError(422, "/errors/invalid-input", "text 3 is too long")
    assert verdict(error, Situation(1, True, True, 0)) is error


@pytest.mark.parametrize("retries", [(), ("--retries", "0")])
def test_no_try_is_made_before_the_service_wants_it(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, retries: tuple[str, ...]
) -> None:
    """Also where the client itself does not wait: for more than a minute, and without retries."""
    waits: list[float] = []

    async def noted(seconds: float) -> None:
        waits.append(seconds)

    waits_by(monkeypatch, noted)
    pictures(Path("p"), ["a.png"])
    scripted.trouble = [problem(429, "queue-full", 120) for _ in range(4)]
    assert scripted(*ASK, *retries) == 0
    assert len(waits) == 4
    assert min(waits) >= 120


def test_a_service_that_wants_longer_than_anybody_waits(scripted: Scripted) -> None:
    pictures(Path("p"), ["a.png"])
    scripted.trouble = [problem(503, "draining", 86_400)]
    assert scripted(*ASK) == 1
    assert "the service answers nothing: It is draining." in scripted.err
    assert len(scripted.asked) == 1


@pytest.mark.parametrize("trouble", [lambda: httpx.ConnectError("refused"), lambda: httpx.Response(502)])
def test_a_service_that_was_there_and_is_away_for_a_while(
    scripted: Scripted, trouble: Callable[[], httpx.Response | Exception]
) -> None:
    """As a restart takes longer than all retries of a client, and a proxy answers 502 meanwhile."""
    paths = pictures(Path("p"), [f"{number:02}.png" for number in range(30)])

    def answer(request: httpx.Request) -> httpx.Response:
        if len(scripted.asked) == 10 and not scripted.trouble:
            scripted.trouble = [trouble() for _ in range(400)]
        return scripted.answer(request)

    scripted.answers(answer)
    assert scripted(*ASK, "--retries", "1") == 0
    assert written() == sorted(map(str, paths))


def test_a_service_that_does_not_come_back_ends_the_run(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "PATIENCE_SECONDS", 0)
    pictures(Path("p"), [f"{number:02}.png" for number in range(30)])

    def answer(request: httpx.Request) -> httpx.Response:
        if len(scripted.asked) == 10:
            raise httpx.ConnectError("refused")
        return scripted.answer(request)

    scripted.answers(answer)
    assert scripted(*ASK, "--retries", "0") == 1
    assert "blip-serve: the service cannot be reached: no answer from test" in scripted.err
    assert not Path("failures.jsonl").exists()


def test_a_service_that_hangs_ends_the_run(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "PATIENCE_SECONDS", 0)
    pictures(Path("p"), [f"{number:02}.png" for number in range(30)])
    scripted.trouble = [httpx.ReadTimeout("slow") for _ in range(100)]
    assert scripted(*ASK) == 1
    assert "blip-serve: the service answers nothing: no answer from test" in scripted.err
    assert len(scripted.asked) < 30


def test_a_service_that_refuses_pictures_is_there(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long none of them was good."""
    now = 0.0
    monkeypatch.setattr(running, "time", SimpleNamespace(monotonic=lambda: now))

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal now
        now += 100
        return scripted.answer(request)

    pictures(Path("p"), [f"{number:02}.png" for number in range(30)])
    scripted.answers(answer)
    scripted.trouble = [*(problem(422, "bad-image") for _ in range(20)), problem(429, "queue-full", 1)]
    assert scripted(*ASK, "--concurrency", "1") == 1
    assert len(written()) == 10


def test_a_service_that_moved_ends_the_run(scripted: Scripted) -> None:
    pictures(Path("p"), ["a.png"])
    scripted.trouble = [httpx.Response(302, headers={"location": "https://login.test/"})]
    assert scripted(*ASK) == 1
    assert "blip-serve: the service is not at this address: 302 Found, to https://login.test/\n" in scripted.err


def test_an_answer_without_a_caption(scripted: Scripted) -> None:
    pictures(Path("p"), ["a.png"])
    scripted.trouble = [httpx.Response(200, json={"model": "m", "captions": []})]
    assert scripted(*ASK) == 1
    (row,) = map(json.loads, Path("failures.jsonl").read_text().splitlines())
    assert "not an answer to what was asked" in row["error"]


def test_a_service_that_was_never_there(bulk: Bulk) -> None:
    pictures(Path("p"), ["a.png"])
    assert bulk("caption", "p", "--url", "http://127.0.0.1:1", "--retries", "0") == 1
    assert "blip-serve: no answer from 127.0.0.1" in bulk.err


@pytest.mark.parametrize(("status", "tries"), [(504, 2), (500, 1), (422, 1)])
def test_what_is_tried_again_once_or_never(scripted: Scripted, status: int, tries: int) -> None:
    pictures(Path("p"), ["a.png"])
    scripted.trouble = [problem(status, "bad-image") for _ in range(10)]
    assert scripted(*ASK) == 1
    assert len(scripted.asked) == tries
    (row,) = map(json.loads, Path("failures.jsonl").read_text().splitlines())
    assert row == {
        "path": "p/a.png",
        "error": "It is bad-image.",
        "status": status,
        "type": "/errors/bad-image",
        "request_id": "r",
    }


def test_a_wrong_key_ends_the_run_at_once(scripted: Scripted) -> None:
    pictures(Path("p"), [f"{number:02}.png" for number in range(30)])
    scripted.trouble = [problem(401, "unauthorized") for _ in range(30)]
    assert scripted(*ASK) == 1
    assert "blip-serve: It is unauthorized. (BLIP_API_KEY holds the key)\n" in scripted.err
    assert len(scripted.asked) < 30


def test_the_key_and_the_address_come_from_the_environment(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(Path("p"), ["a.png"])
    keys = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["authorization"])
        return scripted.answer(request)

    scripted.answers(answer)
    monkeypatch.setenv("BLIP_URL", "http://test")
    monkeypatch.setenv("BLIP_API_KEY", "sesame")
    assert scripted("caption", "p") == 0
    assert keys == ["Bearer sesame"] * 2


def test_an_answer_of_somebody_else(scripted: Scripted) -> None:
    pictures(Path("p"), ["a.png"])
    scripted.trouble = [httpx.Response(200, json={"hello": "world"})]
    assert scripted(*ASK) == 1
    assert "not an answer of blip-serve's /caption" in scripted.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_in_flight_is_finished_when_it_is_interrupted(scripted: Scripted, number: signal.Signals) -> None:
    pictures(Path("p"), [f"{number:03}.png" for number in range(200)])

    def answer(request: httpx.Request) -> httpx.Response:
        if len(scripted.asked) == 20:
            os.kill(os.getpid(), number)
        return scripted.answer(request)

    scripted.answers(answer)
    assert scripted(*ASK) == 128 + number
    assert 20 <= len(scripted.asked) == len(written()) < 200
    assert "blip-serve: interrupted: " in scripted.err
    scripted.answers(scripted.answer)
    assert scripted(*ASK) == 0
    assert len(set(written())) == len(written()) == len(scripted.asked) == 200


def test_a_second_signal_ends_it_at_once(scripted: Scripted) -> None:
    pictures(Path("p"), [f"{number:03}.png" for number in range(100)])

    def answer(request: httpx.Request) -> httpx.Response:
        response = scripted.answer(request)
        if request.url.path != "/models":
            os.kill(os.getpid(), signal.SIGINT)
            return problem(503, "draining", 1)
        return response

    scripted.answers(answer)
    assert scripted(*ASK) == 130
    assert written() == []
