"""`python -m bench.overhead`: what the service itself costs, without a model: its requests per second for an image that
it knows, beside those of an empty FastAPI endpoint that reads the same body; and, for new images, what decoding takes.

Both are real processes on loopback that log each request, as they do by default, to a file that nobody reads. They get
one core, the clients the other where there is one; the rounds of both are interleaved.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from itertools import count
from typing import Any, NamedTuple

import uvloop
from PIL import Image
from sklearn.datasets import load_sample_image

from bench.measure import print_table

IMAGE_BYTES = 100_000
CONNECTIONS = 8
ROUNDS = 12
ROUND_SECONDS = 0.7
READY_SECONDS = 60.0
FORMS = ("json", "multipart")
BOUNDARY = "----bench-overhead"


class Contender(NamedTuple):
    name: str
    port: int
    paths: dict[str, str]  # by form


class Answered(NamedTuple):
    num_requests: int
    seconds: float
    shares: list[float]  # of each request's time in the server, that of decoding and preprocessing

    @property
    def rate(self) -> float:
        return self.num_requests / self.seconds


# --- what is sent -----------------------------------------------------------------------------------------------------


@cache
def photo() -> bytes:
    """A JPEG of about IMAGE_BYTES."""
    image = Image.fromarray(load_sample_image("china.jpg"))  # 640 x 427
    encodings = (encoded(image, quality) for quality in range(95, 1, -1))
    return next(one for one in encodings if len(one) <= IMAGE_BYTES).ljust(IMAGE_BYTES, b"\0")


def encoded(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def new_photos() -> Iterator[bytes]:
    """The same picture in other bytes: what follows a JPEG's end is ignored."""
    for number in count(time.time_ns()):
        yield photo()[:-8] + number.to_bytes(8, "big")


def request_bytes(path: str, form: str, image: bytes) -> bytes:
    if form == "json":
        media, body = "application/json", json.dumps({"image": base64.b64encode(image).decode(), "num_beams": 3})
        content = body.encode()
    else:
        media = f"multipart/form-data; boundary={BOUNDARY}"
        part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="'
        content = f'{part}image"; filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'.encode() + image
        content += f'\r\n{part}num_beams"\r\n\r\n3\r\n--{BOUNDARY}--\r\n'.encode()
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {media}\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


# --- the clients ------------------------------------------------------------------------------------------------------


class Client(asyncio.Protocol):
    """One connection, kept alive: the next request follows the answer until the time is over. A client library would
    take longer than the server."""

    def __init__(self, requests: Iterator[bytes], until: float) -> None:
        self._requests, self._until = requests, until
        self._received = b""
        self.num_requests = 0
        self.shares: list[float] = []
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if not end or length is None or len(body) < int(length[1]):
            return
        self._received = b""
        if not head.startswith(b"HTTP/1.1 200 "):
            self.done.set_exception(RuntimeError(f"{head.decode()}\n{body.decode()}"))
            return
        self.num_requests += 1
        if b"decode;dur" in head:
            times = {name: float(value) for name, value in re.findall(rb"(\w+);dur=([\d.]+)", head)}
            self.shares.append((times[b"decode"] + times[b"preprocess"]) / times[b"total"])
        if time.monotonic() < self._until:
            self._transport.write(next(self._requests))
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc) if exc else self.done.set_result(None)


async def drive(port: int, requests: Iterator[bytes], connections: int, seconds: float) -> Answered:
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    clients = [Client(requests, began + seconds) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*(client.done for client in clients))
    shares = [share for client in clients for share in client.shares]
    return Answered(sum(client.num_requests for client in clients), time.monotonic() - began, shares)


def requests_of(contender: Contender, form: str, *, new: bool = False) -> Iterator[bytes]:
    path = contender.paths[form]
    if new:
        return (request_bytes(path, form, image) for image in new_photos())
    known = request_bytes(path, form, photo())
    return iter(lambda: known, None)


# --- the servers ------------------------------------------------------------------------------------------------------


@contextmanager
def running(name: str, paths: dict[str, str], cores: set[int]) -> Iterator[Contender]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with open(os.devnull, "w") as log:  # noqa: PTH123
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.overhead_servers", name, str(port)], stdout=log, stderr=log
        )
        os.sched_setaffinity(process.pid, cores)
        try:
            contender = Contender(name, port, paths)
            wait_until_answered(contender)
            yield contender
        finally:
            process.terminate()
            process.wait(30)


def wait_until_answered(contender: Contender) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            uvloop.run(drive(contender.port, requests_of(contender, "json"), 1, 0))
            return
        except (OSError, RuntimeError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def measure(rounds: int = ROUNDS) -> tuple[list[list[str]], dict[str, Any]]:
    """Rows of a table; requests per second of every round by `contender/form`, decoding shares by `form/clients`."""
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        ours = stack.enter_context(running("ours", dict.fromkeys(FORMS, "/caption"), {cores[-1]}))
        empty = stack.enter_context(running("empty", {form: f"/{form}" for form in FORMS}, {cores[-1]}))
        os.sched_setaffinity(0, set(cores[:-1]) or set(cores))
        stack.callback(os.sched_setaffinity, 0, cores)
        rates = compare(rounds, ours, empty)
        shares = {
            f"{form}/{clients}": uvloop.run(drive(ours.port, requests_of(ours, form, new=True), clients, 2.0)).shares
            for form in FORMS
            for clients in (1, CONNECTIONS)
        }
    rows = [["known image", "ours req/s", "empty req/s", "ratio"]]
    for form in FORMS:
        a, b = rates[f"ours/{form}"], rates[f"empty/{form}"]
        ratio = statistics.median(x / y for x, y in zip(a, b, strict=True))
        rows.append([form, f"{statistics.median(a):.0f}", f"{statistics.median(b):.0f}", f"{ratio:.2f}"])
    rows.append(["new images, clients", "decode share", "", ""])
    rows += [[name, f"{statistics.median(values):.2f}", "", ""] for name, values in shares.items()]
    return rows, {"requests_per_second": rates, "decode_share": shares, "image_bytes": IMAGE_BYTES}


def compare(rounds: int, *contenders: Contender) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {f"{one.name}/{form}": [] for form in FORMS for one in contenders}
    for number in range(rounds + 1):  # the first warms up
        for form in FORMS:
            for one in contenders:
                answered = uvloop.run(drive(one.port, requests_of(one, form), CONNECTIONS, ROUND_SECONDS))
                if number:
                    rates[f"{one.name}/{form}"].append(answered.rate)
    return rates


def main() -> None:
    rows, _ = measure()
    print_table(rows)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
