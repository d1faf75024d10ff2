"""A host of pictures, good and bad, over real sockets; and one with a secret, which counts who asks for it.

The certificate in tls/ is for good.example alone; its authority's key was thrown away. Both were made with openssl, for
a hundred years."""

from __future__ import annotations

import asyncio
import gzip
import re
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from tests.app.support import RED

TLS = Path(__file__).with_name("tls")
PIECE = bytes(64 * 1024)
Write = Callable[[bytes], Awaitable[None]]


@dataclass(slots=True)
class Host:
    """`heads`: of the requests that came, as they were sent."""

    port: int = 0
    num_connections: int = 0
    heads: list[str] = field(default_factory=list)
    open: int = 0  # connections now

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        self.num_connections += 1
        self.open += 1
        try:
            with suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
                while await self._answer((await reader.readuntil(b"\r\n\r\n")).decode(), write, reader):
                    pass
        finally:
            self.open -= 1
            writer.close()

    async def _answer(self, head: str, write: Write, reader: asyncio.StreamReader) -> bool:
        """Whether the connection goes on."""
        self.heads.append(head)
        path, _, query = re.sub("^http://[^/]+", "", head.split()[1]).partition("?")  # a proxy is asked for all of it
        match path:
            case "/red.png":
                await write(_head("200 OK", "Content-Type: image/png", "Set-Cookie: a=b", length=len(RED)) + RED)
                return True
            case "/later.png":
                await asyncio.sleep(0.5)
                await write(_head("200 OK", length=len(RED)) + RED)
                return True
            case "/once.png":
                await write(_head("200 OK", "Connection: close", length=len(RED)) + RED)
            case "/stored":
                await write(_head("200 OK", "Content-Type: application/octet-stream", length=len(RED)) + RED)
            case "/text":
                await write(_head("200 OK", "Content-Type: image/png", length=5) + b"hello")
            case "/page":
                await write(_head("200 OK", "Content-Type: text/html; charset=utf-8", length=5) + b"<p>hi")
            case "/to":
                await write(_head("302 Found", f"Location: {unquote(query)}", length=0))
            case "/loop":
                await write(_head("307 Temporary Redirect", "Location: /loop", length=0))
            case "/nowhere":
                await write(_head("301 Moved Permanently", length=0))
            case "/gzip":
                bomb = gzip.compress(bytes(10_000_000))
                await write(
                    _head("200 OK", "Content-Encoding: gzip", "Content-Type: image/png", length=len(bomb)) + bomb
                )
            case "/endless":
                await write(_head("200 OK", "Content-Type: image/png"))
                while True:
                    await write(PIECE)
            case "/promised":
                await write(_head("200 OK", length=600_000))
                await reader.read()
            case "/slowly-endless":
                await write(_head("200 OK", "Content-Type: image/png"))
                while True:
                    await write(PIECE[:4096])
                    await asyncio.sleep(0.005)
            case "/chunks":
                await write(_head("200 OK", "Transfer-Encoding: chunked"))
                while True:
                    await write(b"1\r\nx\r\n" * 10_000)
            case "/informing":
                while True:
                    await write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)
            case "/head":
                await write(b"HTTP/1.1 200 OK\r\n")
                while True:
                    await write(b"X-More: %b\r\n" % PIECE[:100].hex().encode())
            case "/trickle":
                await write(_head("200 OK", length=len(RED)))
                for at in range(len(RED)):
                    await write(RED[at : at + 1])
                    await asyncio.sleep(1)
            case "/silent":
                await reader.read()  # until the client leaves
            case "/larger":
                await write(_head("200 OK", length=10**12))
                await reader.read()
            case "/longer":  # than what comes
                await write(_head("200 OK", length=len(RED) + 10) + RED)
            case "/shorter":
                await write(_head("200 OK", length=10) + RED)
            case "/no-http":
                await write(b"220 mail.example ESMTP\r\n")
            case _:
                status = {"/missing": "404 Not Found", "/forbidden": "403 Forbidden"}.get(path, "500 Oops")
                await write(_head(status, length=0))
        return False


def _head(status: str, *fields: str, length: int | None = None) -> bytes:
    sized = [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, *sized, "", ""]).encode()


@asynccontextmanager
async def host(*, tls: bool = False) -> AsyncIterator[Host]:
    one, context = Host(), None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(TLS / "host.pem", TLS / "host.key")
    server = await asyncio.start_server(one.serve, "127.0.0.1", ssl=context)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()


@contextmanager
def host_in_thread(*, tls: bool = False) -> Iterator[Host]:
    """Beside a test that has no event loop, or whose loop is the service's."""
    found, over = threading.Event(), threading.Event()
    hosts: list[Host] = []

    async def serve() -> None:
        async with host(tls=tls) as one:
            hosts.append(one)
            found.set()
            while not over.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert found.wait(30)
    try:
        yield hosts[0]
    finally:
        over.set()
        thread.join()
