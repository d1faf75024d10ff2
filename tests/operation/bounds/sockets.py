"""Clients that httpx is not: that do not read, read slowly, or leave."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from tests.operation.bounds.bodies import b64, png
from tests.operation.bounds.traffic import pairs

QUESTIONS = [f"what is {number}?" for number in range(64)]
CANDIDATES = [("red blue green " * 6)[:70] + str(number) for number in range(4000)]
TIMEOUT_SECONDS = 60.0
PIECE_BYTES = 2**16


def request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def ask_for_much() -> bytes:
    """300 kB that are answered with some 27 MB."""
    body = {"image": b64(png((32, 32))), "question": QUESTIONS, "candidates": CANDIDATES, "rank_k": 1}
    return request("/vqa", json.dumps(body).encode())


def connect(url: str, buffer_bytes: int) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    connection.settimeout(TIMEOUT_SECONDS)
    connection.connect((host, int(port)))
    return connection


@contextmanager
def who_do_not_read(url: str, number: int) -> Iterator[list[socket.socket]]:
    """They have read the first byte of their answers."""
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(url, 4096)) for _ in range(number)]
        for connection in connections:
            connection.sendall(ask_for_much())
        for connection in connections:
            connection.recv(1)
        yield connections


def is_cut_off(connection: socket.socket) -> bool:
    """Whether what the kernel had is all that comes."""
    connection.settimeout(5)
    try:
        while connection.recv(2**20):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def begin_to_read(connection: socket.socket) -> tuple[int, int]:
    """Bytes that have come, and those of the whole answer."""
    connection.sendall(ask_for_much())
    got = connection.recv(PIECE_BYTES)
    head, _, _ = got.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: (\d+)", head)
    assert found is not None
    return len(got), len(head) + 4 + int(found[1])


def read_on(connection: socket.socket, number: int, bytes_a_second: float) -> int:
    """At most `number` bytes; how many came."""
    got = 0
    with suppress(OSError):
        while got < number and (piece := connection.recv(PIECE_BYTES)):
            got += len(piece)
            time.sleep(len(piece) / bytes_a_second)
    return got


# --- who leave ---


async def restless(url: str, num_clients: int, seconds: float) -> Counter[str]:
    """Clients that leave at any point of a request, most by a reset. What each did."""
    host, port = url.removeprefix("http://").split(":")
    until, done = time.monotonic() + seconds, Counter[str]()
    requests = [request("/match", pairs(number)) for number in range(20)]
    requests += [request("/caption", json.dumps({"image": b64(png((64, 64), (n, 0, 0)))}).encode()) for n in range(60)]

    async def one(generator: random.Random) -> None:
        while time.monotonic() < until:
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                reader, writer = await asyncio.open_connection(host, int(port))
                done[await _visit(reader, writer, generator.choice(requests), generator)] += 1
            await asyncio.sleep(generator.random())

    await asyncio.gather(*(one(random.Random(seed)) for seed in range(num_clients)))
    return done


async def _visit(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes, generator: random.Random
) -> str:
    how = generator.choice(("head", "body", "sent", "answered", "read"))
    try:
        part = {"head": 40, "body": len(data) // 2}.get(how, len(data))
        writer.write(data[:part])
        await asyncio.wait_for(writer.drain(), TIMEOUT_SECONDS)
        if how in ("answered", "read"):
            await asyncio.wait_for(reader.readuntil(b"\r\n"), TIMEOUT_SECONDS)
        else:
            await asyncio.sleep(generator.random() / 2)
        if how == "read":
            await asyncio.wait_for(reader.read(2**16), TIMEOUT_SECONDS)
    finally:
        if generator.random() < 0.8:  # a reset in place of an end
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
    return how
