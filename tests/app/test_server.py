"""The real process, over real sockets: every form, slow and lost clients, SIGTERM under load."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx
import pytest

from tests.app.support import BLUE, FIELDS, RED, TASKS, b64

PNG = {"content-type": "image/png"}
ROOT = Path(__file__).parents[2]
SIGNALS = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]
FAKE = ("-W", "error", "-m", "tests.app.fake_server")
REAL = ("-m", "app")
NOHUP = (
    "-c",
    "import runpy, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
    "runpy.run_module('tests.app.fake_server', run_name='__main__')",
)


@dataclass(slots=True)
class Server:
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)
    url: str = ""

    def read_log(self, lines: IO[str], found: threading.Event) -> None:
        for line in lines:
            self.log.append(line)
            if listening := re.search(r"listening on (http://[^,]+),", line):
                self.url = listening[1]
                found.set()
        found.set()

    def tell(self, *lines: str) -> None:
        """A word to the fake; returns when it has been obeyed."""
        assert self.process.stdin
        assert self.process.stdout
        for line in lines:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline().strip() == line

    def stop(self, kind: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(kind)
        return self.process.wait(90)  # a busy machine imports torch for long

    def socket(self) -> socket.socket:
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=30)

    def until_ready(self, client: httpx.Client) -> None:
        while client.get("/health/ready").status_code != 200:
            pass


def _hear_hangups() -> None:
    """The suite may run under nohup, which children inherit."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextmanager
def start(*command: str, **environment: str) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, *(command or FAKE)],
        preexec_fn=_hear_hangups,
        cwd=ROOT,
        env=os.environ | {"BLIP_PORT": "0", "BLIP_THREADS": "2"} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    server, found = Server(process), threading.Event()
    assert process.stderr
    reader = threading.Thread(target=server.read_log, args=(process.stderr, found))
    reader.start()
    try:
        assert found.wait(60)
        yield server
    finally:
        process.kill()
        process.wait()
        reader.join()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start(BLIP_MAX_BODY_BYTES="1000000") as server:
        with httpx.Client(base_url=server.url) as client:
            server.until_ready(client)
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def post(client: httpx.Client, path: str, image: bytes = RED) -> httpx.Response:
    return client.post(path, json={"image": b64(image)} | FIELDS[path])


def answer_of(connection: socket.socket) -> tuple[int, str]:
    """All that comes until the server closes: its status, and the whole text."""
    text = b""
    while chunk := connection.recv(65536):
        text += chunk
    return int(text.split()[1]), text.decode()


@pytest.mark.parametrize("path", TASKS)
def test_every_form(client: httpx.Client, path: str) -> None:
    fields = FIELDS[path]
    answers = [
        post(client, path),
        client.post(path, files={"image": ("red.png", RED)}, data=fields),
        client.post(path, content=RED, headers=PNG, params=fields),
        client.post(path, content=iter([RED[:50], RED[50:]]), headers=PNG, params=fields),  # chunked
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.text for answer in answers}) == 1
    assert all("connection" not in answer.headers for answer in answers)


def test_a_connection_is_kept(server: Server) -> None:
    request = b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n" % len(RED)
    with server.socket() as connection:
        for _ in range(3):
            connection.sendall(request + b"\r\n" + RED)
            text = b""
            while not text.endswith(b"}]}"):
                text += connection.recv(65536)
            assert b" 200 OK" in text
        connection.sendall(request + b"Connection: close\r\n\r\n" + RED)
        assert answer_of(connection)[0] == 200


def test_slow_body() -> None:
    head = b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\n"
    with start(BLIP_BODY_TIMEOUT_SECONDS="0.1") as server, httpx.Client(base_url=server.url, timeout=30) as client:
        server.until_ready(client)
        with server.socket() as connection:
            connection.sendall(head + b"abc")
            status, text = answer_of(connection)
    assert (status, "connection: close" in text, "/errors/slow-body" in text) == (408, True, True)


def test_too_large_while_it_is_sent(server: Server) -> None:
    """The answer arrives whole although the client goes on sending, and is not lost to a reset."""
    head = b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    with server.socket() as connection:
        connection.sendall(head + b"Content-Length: 3000000\r\n\r\n")
        for _ in range(30):
            connection.sendall(bytes(100_000))
        status, text = answer_of(connection)
    assert (status, "connection: close" in text, "/errors/body-too-large" in text) == (413, True, True)
    with server.socket() as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(30):
            connection.sendall(b"%x\r\n" % 100_000 + bytes(100_000) + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        status, text = answer_of(connection)
    assert (status, "/errors/body-too-large" in text) == (413, True)


def test_expect_continue_is_not_invited_when_refused(server: Server) -> None:
    head = b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nExpect: 100-continue\r\n"
    with server.socket() as connection:
        connection.sendall(head + b"Content-Length: 3000000\r\n\r\n")
        begin = connection.recv(65536)
    assert begin.startswith(b"HTTP/1.1 413 ")


def test_unknown_route_with_a_body(client: httpx.Client) -> None:
    response = client.post("/nothing", content=bytes(100_000))
    assert (response.status_code, response.headers["connection"]) == (404, "close")
    assert client.get("/health/live").status_code == 200


def test_a_client_that_left_is_not_served(server: Server, client: httpx.Client) -> None:
    server.tell("hold")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(post, client, "/caption")
        server.tell("wait")
        with server.socket() as leaving:
            head = b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
            leaving.sendall(head % len(RED) + RED)
            until_metric(client, "blip_queue_items 1.0")
        until_metric(client, 'blip_requests_total{code="499",model="fake",task="caption"} 1.0')
        until_metric(client, "blip_queue_items 0.0")
        server.tell("release")
        assert first.result().status_code == 200


def until_metric(client: httpx.Client, line: str) -> None:
    """The suite's time limit bounds it."""
    while line not in client.get("/metrics").text.splitlines():
        pass


@pytest.mark.parametrize("kind", SIGNALS)
def test_signal_under_load(kind: signal.Signals) -> None:
    """Accepted requests of every task complete; new ones get 503 over new connections; the exit code is 0."""
    with start() as server, httpx.Client(base_url=server.url, timeout=30) as client:
        server.until_ready(client)
        server.tell("hold")
        with ThreadPoolExecutor(16) as pool:
            accepted = [pool.submit(post, client, TASKS[number % 4], BLUE) for number in range(12)]
            until_metric(client, "blip_inflight_requests 12.0")
            server.tell("wait")
            server.process.send_signal(kind)
            while (ready := client.get("/health/ready")).status_code == 200:
                pass
            assert (ready.status_code, ready.headers["connection"]) == (503, "close")
            with httpx.Client(base_url=server.url) as newcomer:
                refused = post(newcomer, "/caption")
            assert (refused.status_code, refused.headers["connection"]) == (503, "close")
            assert (refused.json()["type"], refused.headers["retry-after"]) == ("/errors/draining", "5")
            assert server.process.poll() is None
            server.tell("release")
            assert [one.result().status_code for one in accepted] == [200] * 12
        assert server.process.wait(30) == 0
    assert not [line for line in server.log if "Traceback" in line or "ERROR" in line]


def test_sigterm_with_a_device_that_hangs() -> None:
    """What cannot complete is answered, and the process ends."""
    with start(BLIP_DRAIN_SECONDS="1") as server, httpx.Client(base_url=server.url, timeout=30) as client:
        server.until_ready(client)
        server.tell("hold")
        with ThreadPoolExecutor() as pool:
            stuck = pool.submit(post, client, "/caption")
            server.tell("wait")
            assert server.stop() == 0
            assert (stuck.result().status_code, stuck.result().json()["type"]) == (503, "/errors/draining")


def test_second_signal_stops_at_once() -> None:
    with start(BLIP_DRAIN_SECONDS="1000") as server, httpx.Client(base_url=server.url, timeout=30) as client:
        server.until_ready(client)
        server.tell("hold")
        with ThreadPoolExecutor() as pool:
            stuck = pool.submit(post, client, "/caption")
            server.tell("wait")
            server.process.send_signal(signal.SIGINT)
            while client.get("/health/ready").status_code == 200:
                pass
            server.stop(signal.SIGINT)
            assert stuck.exception() or stuck.result().status_code == 503


def test_probes_while_loading_and_sigterm_then() -> None:
    with start(BLIP_PROFILE="slow") as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/health/live").status_code == 200
        assert client.get("/health/ready").status_code == 503
        assert server.stop() == 0


# While it is idle, while torch is imported (its library is mapped), and while weights are read.
MOMENTS: dict[str, Callable[[Server], bool]] = {
    "listening": lambda server: bool(server.url),
    "importing": lambda server: "libtorch_cpu" in Path(f"/proc/{server.process.pid}/maps").read_text(),
    "tower": lambda server: any("loaded tower" in line for line in server.log),
    "heads": lambda server: any("loaded demo/caption" in line for line in server.log),
    "nearly there": lambda server: any("loaded demo-blip2/match" in line for line in server.log),
}


@pytest.mark.parametrize("kind", SIGNALS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_signal_while_real_models_load(moment: str, kind: signal.Signals) -> None:
    """0, and neither the abort of a thread that comes back from C++ nor a traceback."""
    with start(*REAL, BLIP_PROFILE="demo-shapes") as server:
        while not MOMENTS[moment](server):
            assert server.process.poll() is None
        assert server.stop(kind) == 0
    assert not [line for line in server.log if not re.match(r"\d{4}-\d\d-\d\d .* INFO ", line)]


def test_sighup_that_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    with start(*NOHUP) as server, httpx.Client(base_url=server.url) as client:
        server.process.send_signal(signal.SIGHUP)
        server.until_ready(client)
        assert server.stop() == 0


def test_loading_that_fails() -> None:
    with start(BLIP_PROFILE="broken") as server:
        assert server.process.wait(30) == 1
    complaints = [line for line in server.log if line.startswith("blip-serve:")]
    assert complaints == ["blip-serve: the checkpoint is missing: /nowhere\n"]
    assert not any("Traceback" in line for line in server.log)


def test_ready_is_said_once_with_an_address_and_the_models() -> None:
    with start() as server, httpx.Client(base_url=server.url) as client:
        server.until_ready(client)
        for _ in range(3):  # looks at a tenth of a second each
            client.get("/health/live")
        server.stop()
    said = [line.partition(" INFO blip: ")[2].strip() for line in server.log]
    assert said[0] == f"listening on {server.url}, and loading demo"
    assert [line for line in said if line.startswith("ready")] == [f"ready: {server.url}/ (fake)"]


def test_all_addresses_are_ipv4_and_ipv6() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with start(BLIP_HOST="::") as server:
        port = int(server.url.rpartition(":")[2])
        assert server.url == f"http://[::1]:{port}"
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=30).close()


def test_log_says_what_is_served_as_json() -> None:
    with start(BLIP_LOG_FORMAT="json") as server, httpx.Client(base_url=server.url) as client:
        server.until_ready(client)
        post(client, "/caption")
        server.stop()
    assert all(line.startswith("{") for line in server.log)
    assert any('"message": "serving fake (names colours; has no weights)' in line for line in server.log)
    assert any('"task": "caption", "model": "fake", "status": 200' in line for line in server.log)
