"""How much of one request is in the queue at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Window:
    """How many items one request has in the queue or on the device: as many as `may_add`, told that number, allows."""

    def __init__(self, may_add: Callable[[int], bool]) -> None:
        self._may_add = may_add
        self._num_own = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def room(self) -> None:
        """Until one more may be added."""
        while not self._may_add(self._num_own):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    async def __aenter__(self) -> None:
        await self.room()
        self._num_own += 1
        self._wake()  # as there may be room for more than one

    async def __aexit__(self, *_: object) -> None:
        self._num_own -= 1
        self._wake()

    def _wake(self) -> None:
        if self._waiters and not (waiter := self._waiters.popleft()).done():
            waiter.set_result(None)
