"""The feature cache: each distinct image runs through its tower once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from app.metrics import Metrics
from models.inputs import Preprocessing
from models.outputs import Features

REMEMBERED = 10_000  # evicted images, to count the misses that a larger cache would have saved


class FeatureKey(NamedTuple):
    tower: str  # its unit
    preprocessing: Preprocessing
    digest: bytes  # SHA-256 of the uploaded bytes
    most_frames: int = 1  # as in `Job`


@dataclass(slots=True, eq=False)
class Flight:
    """One encode in progress."""

    task: asyncio.Future[Features]
    num_waiters: int = 0


class FeatureCache:
    """An LRU cache bounded in bytes, with single flight. Belongs to one event loop."""

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self.max_bytes = max_bytes
        self._metrics = metrics
        self._entries: OrderedDict[FeatureKey, Features] = OrderedDict()
        self._flights: dict[FeatureKey, Flight] = {}
        self._tasks: set[asyncio.Future[Features]] = set()
        self._bytes = 0
        self._dropped: OrderedDict[FeatureKey, None] = OrderedDict()  # the latest evicted, without features

    @property
    def bytes(self) -> int:
        return self._bytes

    async def get(self, key: FeatureKey, encode: Callable[[], Awaitable[Features]]) -> Features:
        """The features of `key`: from the cache, from an encode in progress, or from `encode`.

        `encode` runs as long as anyone waits for it, so it must not have its first caller's deadline. Each caller
        bounds its own wait by cancellation. What `encode` raises goes to all who wait, and is not cached.
        """
        features = self._entries.get(key)
        if features is not None:
            self._entries.move_to_end(key)
            self._count("hit")
            return features
        flight = self._flights.get(key)
        self._count("miss" if flight is None else "joined")
        if flight is None:
            if key in self._dropped:
                self._metrics.feature_cache_returned.inc()
            flight = self._take_off(key, encode)
        flight.num_waiters += 1
        try:
            await asyncio.wait([flight.task])
            return flight.task.result()
        finally:
            flight.num_waiters -= 1
            if not flight.num_waiters:
                self._forget(key, flight)  # first: nobody may join an encode that is being cancelled
                flight.task.cancel()

    async def close(self) -> None:
        """Cancel every encode in progress, and with it all who wait; return when the encodes have ended."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take_off(self, key: FeatureKey, encode: Callable[[], Awaitable[Features]]) -> Flight:
        task = asyncio.ensure_future(encode())
        flight = self._flights[key] = Flight(task)
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._land(key, flight))
        return flight

    def _land(self, key: FeatureKey, flight: Flight) -> None:
        self._tasks.discard(flight.task)
        self._forget(key, flight)
        if not flight.task.cancelled() and flight.task.exception() is None:
            self._keep(key, flight.task.result())

    def _forget(self, key: FeatureKey, flight: Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _keep(self, key: FeatureKey, features: Features) -> None:
        if features.nbytes > self.max_bytes:
            return
        replaced = self._entries.pop(key, None)
        self._bytes += features.nbytes - (replaced.nbytes if replaced is not None else 0)
        self._entries[key] = features
        while self._bytes > self.max_bytes:
            dropped, value = self._entries.popitem(last=False)
            self._bytes -= value.nbytes
            self._dropped[dropped] = None
            self._dropped.move_to_end(dropped)
        while len(self._dropped) > REMEMBERED:
            self._dropped.popitem(last=False)

    def _count(self, result: str) -> None:
        self._metrics.feature_cache.labels(result).inc()
