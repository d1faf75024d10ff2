"""The window at work: each try of each request passes it, the repeated ones too."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import httpx

from app.bulk.window import Window

FULL = (429, 503)


class PacedTransport(httpx.AsyncBaseTransport):
    """Holds requests back until the window has room, and tells it what came of them. `changed` is called when room may
    have come or gone."""

    def __init__(self, inner: httpx.AsyncBaseTransport, window: Window, changed: Callable[[], object]) -> None:
        self._inner = inner
        self._window = window
        self._changed = changed
        self._waiters: deque[asyncio.Future[int]] = deque()

    @property
    def num_waiting(self) -> int:
        return len(self._waiters)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        ticket = await self._ticket()
        tell: Callable[[int], None] = self._window.ended  # of what is cancelled, too
        try:
            response = await self._inner.handle_async_request(request)
            tell = self._window.refused if response.status_code in FULL else self._window.answered
        except (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout):
            tell = self._window.lost
            raise
        else:
            return response
        finally:
            tell(ticket)
            self._wake()

    async def _ticket(self) -> int:
        """In the order in which they came."""
        if not self._waiters and self._window.has_room:
            return self._window.send()
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._changed()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it had just been let in
                self._window.ended(waiter.result())
                self._wake()
            raise

    def _wake(self) -> None:
        while self._waiters and self._window.has_room:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(self._window.send())
        self._changed()

    async def aclose(self) -> None:
        await self._inner.aclose()
