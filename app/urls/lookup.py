"""Looking a name up. getaddrinfo blocks, for as long as the resolver likes."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress


class LookUps:
    """So many at once, each in a thread that the end of the process does not wait for. Belongs to one event loop."""

    def __init__(self, most: int) -> None:
        self._room = asyncio.Semaphore(most)

    async def addresses(self, host: str, port: int) -> list[str]:
        """Every address that it has, in the resolver's order; none: it has none, or cannot be looked up. One that is
        tied to an interface is written with its scope (`fe80::1%2`)."""
        await self._room.acquire()
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[str]] = loop.create_future()
        threading.Thread(target=self._run, args=(loop, found, host, port), name="look-up", daemon=True).start()
        return await found

    def _run(self, loop: asyncio.AbstractEventLoop, found: asyncio.Future[list[str]], host: str, port: int) -> None:
        addresses: list[str] = []
        with suppress(OSError, ValueError):  # no such name, or none at all: a label that is too long
            addresses = [_written(one[4]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        with suppress(RuntimeError):  # the event loop has ended meanwhile
            loop.call_soon_threadsafe(self._end, found, list(dict.fromkeys(addresses)))

    def _end(self, found: asyncio.Future[list[str]], addresses: list[str]) -> None:
        self._room.release()
        if not found.done():
            found.set_result(addresses)


def _written(address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]) -> str:
    host = str(address[0])
    return f"{host}%{address[3]}" if len(address) == 4 and address[3] and "%" not in host else host
