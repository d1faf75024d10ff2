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
TARGET = b"GET /health/live HTTP/1.1\r\n"
LIVE = TARGET + b"Host: x\r\n"
EMBED = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
TEXT = b'{"text":"red"}'
CHUNKS = b"\r\n%x\r\n%b\r\n0\r\n" % (len(TEXT), TEXT)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LAST = LIVE + b"Connection: close\r\n\r\n"


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


# --- RFC 9112: what of a head is refused, although it can be parsed ---


@pytest.mark.parametrize(
    "head",
    [
        TARGET,
        TARGET + OFFER,
        LIVE + b"Host: x\r\n",
        LIVE + b"Host: y\r\n",
        b"GET http://x/health/live HTTP/1.1\r\n",
        b"GET /health/live HTTP/1.0\r\nHost: x\r\nHost: y\r\n",
        *(
            TARGET + b"Host: %b\r\n" % host
            for host in (b"a b", b"a/b", b"a@b", b"a, b", b"\xff", b"a:80x", b"[x", b"a?")
        ),
    ],
)
def test_host_that_is_not_one(server: Server, head: bytes) -> None:
    """None, two, or not a host at all."""
    assert refusal(server, head + b"\r\n" + LAST) == (400, "/errors/malformed")


@pytest.mark.parametrize(
    "host", [b"", b"x", b"x:", b"blip_serve.x:8000", b"127.0.0.1", b"[::1]:80", b"xn--bcher-kva.example"]
)
def test_host_of_any_kind(server: Server, host: bytes) -> None:
    with server.socket() as connection:
        connection.sendall(TARGET + b"Host: %b\r\nConnection: close\r\n\r\n" % host)
        assert statuses(connection) == ["200"]


@pytest.mark.parametrize(
    "head", [b"GET /health/live HTTP/1.0\r\n", b"GET http://y/health/live HTTP/1.0\r\nHost: x\r\n"]
)
def test_http_1_0(server: Server, head: bytes) -> None:
    with server.socket() as connection:
        connection.sendall(head + b"\r\n")
        assert statuses(connection) == ["200"]


@pytest.mark.parametrize("version", [b"", b" HTTP/0.9", b" HTTP/1.2", b" HTTP/2.0", b" HTTP/01.1"])
def test_other_versions(server: Server, version: bytes) -> None:
    request = b"GET /health/live%b\r\n" % version
    assert refusal(server, request + b"Host: x\r\n\r\n" if version else request + b"\r\n") == (400, "/errors/malformed")


@pytest.mark.parametrize(
    "values",
    [
        [b"gzip"],
        [b"gzip, chunked"],
        [b"identity, chunked"],
        [b"gzip", b"chunked"],
        [b"chunked;q=1"],
        [b"xchunked"],
    ],
)
@pytest.mark.parametrize("offer", [b"", OFFER])
def test_other_transfer_codings(server: Server, values: list[bytes], offer: bytes) -> None:
    fields = b"".join(b"Transfer-Encoding: %b\r\n" % value for value in values)
    assert refusal(server, EMBED + offer + fields + CHUNKS + b"\r\n" + LAST) == (501, "/errors/transfer-coding")


@pytest.mark.parametrize(
    "head",
    [
        EMBED + CHUNKED + CHUNKED,
        EMBED + b"Transfer-Encoding: chunked, chunked\r\n",
        EMBED + b"Transfer-Encoding: chunked, gzip\r\n",
        EMBED + CHUNKED + b"Transfer-Encoding: gzip\r\n",
        EMBED + b"Transfer-Encoding: , chunked\r\n",
        EMBED + b"Transfer-Encoding:\r\n",
        EMBED + b"Transfer-Encoding : chunked\r\n",
        EMBED + CHUNKED + b"Content-Length: 14\r\n",
        EMBED + b"Content-Length: 14\r\n" + CHUNKED,
        EMBED.replace(b"1.1", b"1.0") + CHUNKED,
        *(
            EMBED + b"Content-Length: %b\r\n" % length
            for length in (
                b"+14",
                b"-14",
                b"1 4",
                b"0xe",
                b"14, 14",
                b"14\r\nContent-Length: 14",
                b"",
                b"14.0",
                b"9" * 30,
            )
        ),
        EMBED + b"X: a\r\n b\r\n",
        EMBED + b"X: a\nY: b\r\n",
        EMBED + b"X: a\rb\r\n",
        EMBED + b"X: a\0b\r\n",
        EMBED.replace(b"\r\n", b"\n") + b"Content-Length: 14\r\n",
    ],
)
def test_doubtful_framing(server: Server, head: bytes) -> None:
    """Where one body ends and the next request begins must not be a matter of opinion."""
    assert refusal(server, head + CHUNKS + b"\r\n" + LAST) == (400, "/errors/malformed")


def test_trailers_are_no_header_fields(server: Server) -> None:
    """A proxy in front looks at the head alone."""
    trailers = b"X-Request-ID: smuggled\r\nX-Request-Timeout: nonsense\r\nHost: y\r\n"
    with server.socket() as connection:
        connection.sendall(EMBED + CHUNKED + b"X-Request-ID: mine\r\n" + CHUNKS + trailers + b"\r\n" + LAST)
        _, text = answer_of(connection)
    assert re.findall(r"HTTP/1\.1 (\d+) ", text) == ["200", "200"]
    assert "x-request-id: mine" in text


def test_garbage_after_an_accepted_request(server: Server) -> None:
    """The answer that is due is given, and is the last."""
    with server.socket() as connection:
        connection.sendall(CAPTION + b"Content-Length: %d\r\n\r\n" % len(RED) + RED + b"garbage\r\n\r\n")
        assert statuses(connection) == ["200"]
