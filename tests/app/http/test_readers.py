"""Answers until they are read, and bodies while they come: given time while there is progress, then cut off."""

from __future__ import annotations

import json
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from app.http.exchange import SLOWEST_BYTES
from app.http.gate import Progress
from tests.app.support import RED, b64, lab, run
from tests.app.test_chat import CHAT, talk
from tests.app.test_server import Server, start, until_metric

QUESTIONS, CANDIDATES = (
    [f"is it {number}?" for number in range(64)],
    [f"red {number} ".ljust(70) for number in range(3000)],
)
SPAN = 30.0


MUCH = ("/vqa", {"image": b64(RED), "question": QUESTIONS, "candidates": CANDIDATES, "rank_k": 1})
LONG_CANDIDATES = [one.ljust(4000) + "." for one in CANDIDATES]
MUCH_STREAMED = (CHAT, talk("is it?", stream=True, candidates=LONG_CANDIDATES))


def ask_for_much(server: Server, path: str, asked: dict[str, Any]) -> socket.socket:
    """An answer of some 12 or 17 MB, to a client that has read its first byte."""
    body = json.dumps(asked).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    host, port = server.url.removeprefix("http://").split(":")
    connection.connect((host, int(port)))
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    assert connection.recv(1) == b"H"
    return connection


@pytest.mark.parametrize(("path", "asked"), [MUCH, MUCH_STREAMED], ids=["at once", "streamed"])
def test_who_does_not_read_is_cut_off_and_nothing_of_it_stays(path: str, asked: dict[str, Any]) -> None:
    with start(BLIP_BODY_TIMEOUT_SECONDS="0.3") as server, httpx.Client(base_url=server.url, timeout=30) as client:
        server.until_ready(client)
        with ask_for_much(server, path, asked):
            until_metric(client, "blip_readers_cut_off_total 1.0")
            until_metric(client, "blip_answer_bytes 0.0")
            until_metric(client, "blip_inflight_bytes 0.0")
            until_metric(client, "blip_inflight_requests 0.0")


def test_an_answer_counts_until_it_is_read_and_a_drain_waits_for_it() -> None:
    with start() as server, httpx.Client(base_url=server.url, timeout=30) as client:
        server.until_ready(client)
        with ask_for_much(server, *MUCH) as connection:
            metrics = client.get("/metrics").text
            counted = float(
                next(line.split()[1] for line in metrics.splitlines() if line.startswith("blip_answer_bytes"))
            )
            assert counted > 1e6  # what the kernel holds is not counted
            server.process.send_signal(signal.SIGTERM)
            text = b"H"
            while part := connection.recv(1 << 20):
                text += part
        head, _, answer = text.partition(b"\r\n\r\n")
        assert f"content-length: {len(answer)}".encode() in head
        assert len(json.loads(answer)["answers"]) == 64
        assert server.process.wait(30) == 0


def test_a_drain_waits_for_a_stream() -> None:
    """Which has begun, and goes on while new work is refused."""
    with start() as server, httpx.Client(base_url=server.url, timeout=30) as client:
        server.until_ready(client)
        server.tell("hold")
        with ThreadPoolExecutor(1) as pool:
            begun = threading.Event()
            told: list[str] = []

            def listen() -> None:
                with client.stream("POST", CHAT, json=talk(num_beams=1, stream=True)) as response:
                    for line in response.iter_lines():
                        told.append(line)
                        begun.set()

            listening = pool.submit(listen)
            server.tell("wait", "go", "wait", "go")  # the start, and the first token
            assert begun.wait(30)
            assert '"content":"a"' in told[0]
            server.process.send_signal(signal.SIGTERM)
            while client.get("/health/ready").status_code == 200:
                pass
            assert client.post(CHAT, json=talk()).json()["error"]["code"] == "draining"
            server.tell("release")
            listening.result()
        assert told[-2:] == ["data: [DONE]", ""]
        assert server.process.wait(30) == 0


def test_fewer_candidates_can_be_asked_for() -> None:
    async def test() -> None:
        async with lab() as there:
            colours = ["red", "blue", "green", "black"]
            answer = (await there.ask("/vqa", candidates=colours)).json()["answers"][0]
            fewer = (await there.ask("/vqa", candidates=colours, top_candidates=2)).json()["answers"][0]
            assert fewer["candidates"] == answer["candidates"][:2]
            assert (len(answer["candidates"]), fewer["answer"]) == (4, answer["answer"])
            many = [f"red {number}" for number in range(4096)]
            refused = await there.ask("/vqa", question=QUESTIONS, candidates=many, rank_k=1, top_candidates=4096)
            assert refused.status_code == 200  # 64 x 4,096 is the limit itself

    run(test)


@pytest.mark.parametrize(
    ("fields", "word"), [({"top_candidates": 2}, "only with `candidates`"), ({"top_candidates": 0}, "greater")]
)
def test_fewer_of_nothing_is_refused(fields: dict[str, int], word: str) -> None:
    async def test() -> None:
        async with lab() as there:
            response = await there.ask("/vqa", RED, **fields)
            assert (response.status_code, word in response.json()["detail"]) == (422, True)

    run(test)


# --- the rule for bodies, in seconds that are told ---


def test_a_body_that_stalls_has_one_span() -> None:
    progress = Progress(SPAN, 300)
    assert progress.seconds_left(0, 0) == SPAN
    assert progress.seconds_left(10, 5000) == SPAN


def test_a_body_that_goes_on_has_its_whole_time() -> None:
    progress = Progress(SPAN, 300)
    for now in range(290):
        assert progress.seconds_left(now, now * SLOWEST_BYTES) > 0
    assert progress.seconds_left(299, 299 * SLOWEST_BYTES) == 1
    assert progress.seconds_left(300, 300 * SLOWEST_BYTES) <= 0


def test_a_trickle_ends_with_its_span() -> None:
    progress = Progress(SPAN, 300)
    for now in range(30):
        assert progress.seconds_left(now, now) > 0
    assert progress.seconds_left(30, 30) <= 0


def test_a_quick_start_does_not_pay_for_a_trickle() -> None:
    progress = Progress(SPAN, 300)
    assert progress.seconds_left(0, 0) > 0
    assert progress.seconds_left(30, 10_000_000) > 0
    assert progress.seconds_left(60, 10_000_100) <= 0
