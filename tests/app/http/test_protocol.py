"""What is between a socket and the gate: offered upgrades, bounded heads, problems for what cannot be parsed."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import httpx
import pytest

from app.http.protocol import HEAD_BYTES
from tests.app.support import FIELDS, RED, TASKS, b64
from tests.app.test_server import PNG, Server, answer_of, post, start

H2C = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQAAP__"}
CAPTION = b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
OFFER = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start() as server:
        with httpx.Client(base_url=server.url) as client:
            server.until_ready(client)
        yield server


@pytest.fixture(scope="module")
def hasty() -> Iterator[Server]:
    with start(BLIP_BODY_TIMEOUT_SECONDS="0.1") as server:
        yield server


def problem_in(text: str) -> tuple[int, str]:
    """Status and type of the one answer in `text`, which is a whole problem, and the last on its connection."""
    head, _, body = text.partition("\r\n\r\n")
    problem = json.loads(body)
    assert "content-type: application/problem+json" in head
    assert "connection: close" in head
    assert f"x-request-id: {problem['request_id']}" in head
    assert re.fullmatch("[0-9a-f]{32}", problem["request_id"])
    assert head.startswith(f"HTTP/1.1 {problem['status']} ")
    return problem["status"], problem["type"]


def refusal(server: Server, *pieces: bytes) -> tuple[int, str]:
    with server.socket() as connection:
        for piece in pieces:
            connection.sendall(piece)
        return problem_in(answer_of(connection)[1])


def statuses(connection: socket.socket) -> list[str]:
    return re.findall(r"HTTP/1\.1 (\d+) ", answer_of(connection)[1])


# --- offered upgrades ---


@pytest.mark.parametrize("path", TASKS)
def test_offered_upgrade_keeps_the_body(server: Server, path: str) -> None:
    fields = FIELDS[path]
    with httpx.Client(base_url=server.url, timeout=30) as client:
        plain = post(client, path)
        answers = [
            client.post(path, json={"image": b64(RED)} | fields, headers=H2C),
            client.post(path, files={"image": ("red.png", RED)}, data=fields, headers=H2C),
            client.post(path, content=RED, headers=PNG | H2C, params=fields),
            client.post(path, content=iter([RED[:50], RED[50:]]), headers=PNG | H2C, params=fields),  # chunked
        ]
    assert [(answer.status_code, answer.text) for answer in answers] == [(200, plain.text)] * 4
    assert all("connection" not in answer.headers for answer in answers)


def test_offered_upgrades_in_a_pipeline(server: Server) -> None:
    sized = b"Content-Length: %d\r\n\r\n" % len(RED) + RED
    with server.socket() as connection:
        connection.sendall((CAPTION + OFFER + sized) * 3 + CAPTION + b"Connection: close\r\n" + sized)
        assert statuses(connection) == ["200"] * 4


def test_offered_upgrade_byte_by_byte(server: Server) -> None:
    with server.socket() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = LIVE + OFFER + b"\r\n" + LIVE + b"Connection: close\r\n\r\n"
        for index in range(len(request)):
            connection.sendall(request[index : index + 1])
        assert statuses(connection) == ["200", "200"]


def test_connect_is_refused(server: Server) -> None:
    assert refusal(server, b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\nabc") == (400, "/errors/malformed")


# --- heads ---


def padded(size: int) -> bytes:
    """A whole head of `size` bytes."""
    head = LIVE + b"Connection: close\r\nX-Pad: "
    return head + b"a" * (size - len(head) - 4) + b"\r\n\r\n"


def test_largest_head(server: Server) -> None:
    with server.socket() as connection:
        connection.sendall(padded(HEAD_BYTES))
        assert statuses(connection) == ["200"]


@pytest.mark.parametrize(
    "pieces",
    [
        [padded(HEAD_BYTES + 1)],
        [LIVE, *[b"X-Pad: " + b"a" * 1000 + b"\r\n"] * 5000],  # the client goes on sending
        [LIVE + b"X-Pad: ", *[b"a" * 100_000] * 30],
        [b"GET /", *[b"a" * 100_000] * 30],
        [CAPTION + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Pad: ", *[b"a" * 100_000] * 30],
    ],
    ids=["whole", "many fields", "one field", "target", "trailer"],
)
def test_too_large_a_head(server: Server, pieces: list[bytes]) -> None:
    assert refusal(server, *pieces) == (431, "/errors/head-too-large")


def test_slow_head(hasty: Server) -> None:
    assert refusal(hasty, LIVE) == (408, "/errors/slow-head")


def test_slow_second_head(hasty: Server) -> None:
    with hasty.socket() as connection:
        connection.sendall(LIVE + b"\r\n")
        assert b" 200 OK" in connection.recv(65536)
        connection.sendall(LIVE)
        text = answer_of(connection)[1]
    assert problem_in(text[text.index("HTTP/1.1 408") :]) == (408, "/errors/slow-head")


def test_silent_connection_is_closed(hasty: Server) -> None:
    with hasty.socket() as connection:
        assert connection.recv(1) == b""


# --- what cannot be parsed ---


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",  # TLS
        CAPTION + b"Content-Length: -1\r\n\r\n",
        CAPTION + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        CAPTION + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_not_http(server: Server, request_bytes: bytes) -> None:
    assert refusal(server, request_bytes) == (400, "/errors/malformed")


def test_garbage_after_an_accepted_request(server: Server) -> None:
    """The answer that is due is given, and is the last."""
    with server.socket() as connection:
        connection.sendall(CAPTION + b"Content-Length: %d\r\n\r\n" % len(RED) + RED + b"garbage\r\n\r\n")
        assert statuses(connection) == ["200"]
