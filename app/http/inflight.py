"""How many bytes of bodies and pixels are in memory at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import BytesFullError


class InflightBytes:
    """The sum over all admitted requests. Bodies are refused beyond the limit; pixels, of requests that are already
    admitted, are not, but leave less room for the next. Any thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self.used = 0

    def check(self, num_bytes: int) -> None:
        """Raises BytesFullError if there is no room for so many."""
        if self.used + num_bytes > self._max_bytes:
            raise BytesFullError("Too many bytes are in flight.")

    def add(self, num_bytes: int, *, refuse: bool = False) -> None:
        with self._lock:
            if refuse:
                self.check(num_bytes)
            self.used += num_bytes

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """What one request holds, given back at its end."""
        lease = Lease(self)
        try:
            yield lease
        finally:
            lease.close()


class Lease:
    def __init__(self, inflight: InflightBytes) -> None:
        self._inflight = inflight
        self._lock = threading.Lock()
        self._closed = False
        self.held = 0

    def add_body(self, num_bytes: int) -> None:
        """Raises BytesFullError."""
        self._inflight.add(num_bytes, refuse=True)
        self.held += num_bytes

    def add_pixels(self, num_bytes: int) -> None:
        """Held to the end of the request; nothing when it has ended: a decode thread cannot be stopped."""
        with self._lock:
            if not self._closed:
                self._inflight.add(num_bytes)
                self.held += num_bytes

    @contextmanager
    def pixels(self, num_bytes: int) -> Iterator[None]:
        """Held while it lasts."""
        self._inflight.add(num_bytes)
        try:
            yield
        finally:
            self._inflight.add(-num_bytes)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._inflight.add(-self.held)
