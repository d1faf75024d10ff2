"""What clients make of answers, and of none."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from blip_client import AnswerError, AsyncClient, BlipError, Client, ProblemError, Retrying, Try, UnreachableError
from blip_client.exchange import retry_after_seconds
from blip_client.results import CaptionAnswer
from tests.app.support import RED, run
from tests.client.support import Script

ANSWER = {"model": "fake", "captions": [{"text": "red", "confidence": 0.5, "alternatives": []}]}
FINE = httpx.Response(200, json=ANSWER)
FULL = httpx.Response(429, headers={"Retry-After": "0"}, json={"type": "/errors/queue-full", "detail": "Full."})
REFUSED = httpx.ConnectError("refused")
FAR = f"Thu, 01 Jan {9 * 10**30} 11:00:00 GMT"
AT_ONCE = Retrying(backoff_seconds=0)


def ask(script: Script, **options: Any) -> CaptionAnswer:
    with Client(transport=script, **({"retries": AT_ONCE} | options)) as client:
        return client.caption(RED)


@pytest.mark.parametrize(
    "passing",
    [FULL, REFUSED, httpx.Response(504), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("gone")],
    ids=["429", "refused", "504", "slow", "gone"],
)
def test_what_passes_is_asked_again_with_the_same_body(passing: httpx.Response | Exception) -> None:
    script = Script(passing, FINE)
    assert ask(script).captions[0].text == "red"
    first, second = (request.content for request in script.requests)
    assert first == second


def test_the_last_error_is_raised() -> None:
    script = Script(FULL)
    with pytest.raises(ProblemError) as caught:
        ask(script, retries=Retrying(2, backoff_seconds=0))
    assert len(script.requests) == 3
    assert (caught.value.status, caught.value.type, caught.value.detail) == (429, "/errors/queue-full", "Full.")
    assert caught.value.retry_after == 0


def test_no_connection_names_the_host() -> None:
    with pytest.raises(UnreachableError, match=r"no answer from blip\.example \(ConnectError: refused\)"):
        ask(Script(REFUSED), url="http://user:secret@blip.example/", retries=0)


@pytest.mark.parametrize("key", ["sesame\n ", "\tsesame"])
def test_a_key_from_a_file_ends_in_a_line_break(key: str) -> None:
    script = Script(FINE)
    ask(script, api_key=key)
    assert script.requests[0].headers["authorization"] == "Bearer sesame"


@pytest.mark.parametrize("key", ["ses\name", "ses\0me", "s\u00e9same"])
def test_a_key_that_cannot_be_sent_is_not_told(key: str) -> None:
    with pytest.raises(ValueError, match="the API key has characters that no header can have") as caught:
        Client(api_key=key)
    assert "same" not in str(caught.value)


def test_an_answer_that_cannot_be_unpacked() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"nonsense"))

    with (
        Client(transport=httpx.MockTransport(answer)) as client,
        pytest.raises(AnswerError, match="not an answer of blip-serve's /caption: "),
    ):
        client.caption(RED)


def test_a_caller_sees_each_try() -> None:
    seen: list[Try] = []
    ask(Script(FULL, REFUSED, FINE), on_try=seen.append)
    assert [(one.number, type(one.error), one.wait_seconds) for one in seen] == [
        (1, ProblemError, 0),
        (2, UnreachableError, 0),
        (3, type(None), None),
    ]
    seen.clear()
    with pytest.raises(UnreachableError):
        ask(Script(REFUSED), on_try=seen.append, retries=0)
    assert [one.wait_seconds for one in seen] == [None]


def test_the_async_client_does_the_same() -> None:
    async def test() -> None:
        seen: list[Try] = []
        script = Script(FULL, REFUSED, FINE)
        async with AsyncClient(transport=script, retries=AT_ONCE, on_try=seen.append) as client:
            assert (await client.caption(RED)).captions[0].text == "red"
        assert [one.number for one in seen] == [1, 2, 3]
        async with AsyncClient(transport=Script(FULL), retries=0) as client:
            with pytest.raises(ProblemError, match="429"):
                await client.caption(RED)

    run(test)


@pytest.mark.parametrize(
    ("response", "told"),
    [
        (httpx.Response(502, html="<h1>Bad Gateway</h1>"), "502 about:blank: 502 Bad Gateway"),
        (httpx.Response(500, json=["no", "object"]), "500 about:blank: 500 Internal Server Error"),
        (httpx.Response(308, headers={"Location": "https://x/"}), "to https://x/"),
        (httpx.Response(413, headers={"X-Request-ID": "7"}), r"\(request 7\)"),
    ],
    ids=["a proxy's page", "a list", "a redirect", "no body"],
)
def test_an_error_that_is_no_problem_json(response: httpx.Response, told: str) -> None:
    with pytest.raises(ProblemError, match=told):
        ask(Script(response))


@pytest.mark.parametrize(
    "answer", [{"html": "<p>hello"}, {"json": {"model": "x"}}, {"json": {"model": 1}}, {"content": b""}]
)
def test_an_answer_of_something_else(answer: dict[str, Any]) -> None:
    with pytest.raises(AnswerError, match="not an answer of blip-serve's /caption"):
        ask(Script(httpx.Response(200, **answer)))


def test_fields_that_a_newer_service_adds_are_let_pass() -> None:
    assert ask(Script(httpx.Response(200, json=ANSWER | {"new": 1}))) == CaptionAnswer.model_validate(ANSWER)


def test_whom_is_asked_and_with_which_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BLIP_URL", raising=False)
    monkeypatch.delenv("BLIP_API_KEY", raising=False)
    ask(script := Script(FINE))
    monkeypatch.setenv("BLIP_URL", "https://blip.example/behind")
    monkeypatch.setenv("BLIP_API_KEY", "one")
    ask(script)
    ask(script, url="http://other:8001", api_key="two")
    assert [(str(one.url), one.headers.get("authorization")) for one in script.requests] == [
        ("http://127.0.0.1:8000/caption", None),
        ("https://blip.example/behind/caption", "Bearer one"),
        ("http://other:8001/caption", "Bearer two"),
    ]
    with pytest.raises(ValueError, match="'localhost:8000' does not begin with http://"):
        Client("localhost:8000")


def test_retry_after_is_seconds_or_a_date() -> None:
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert retry_after_seconds("7", now) == 7
    assert retry_after_seconds("Thu, 01 Jan 2026 12:00:30 GMT", now) == 30
    assert retry_after_seconds("Thu, 01 Jan 2026 11:00:00 GMT", now) == 0
    assert [retry_after_seconds(value, now) for value in ("", "soon", "-1", "1.5", "²", FAR)] == [None] * 6


@pytest.mark.parametrize(
    "error", [ProblemError(429, "/errors/x", "x", "1", 2.0), UnreachableError("x", True), AnswerError("x")]
)
def test_errors_can_be_sent_to_another_process(error: BlipError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(copy), vars(copy), str(copy)) == (type(error), vars(error), str(error))
