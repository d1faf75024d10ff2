"""Whether a request may come in, and what it holds while it is served: its key, the phase of the service, room in the
queue, bytes in flight."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.errors import (
    BodyTooLargeError,
    BytesFullError,
    DrainingError,
    EngineDownError,
    InvalidInputError,
    NotReadyError,
    QueueFullError,
    ServiceError,
    UnauthorizedError,
)
from app.http.endpoints import Endpoint
from app.http.exchange import Exchange
from app.service import Phase, Service


class Admission:
    """Asked before a body is read, and again once it is there. Belongs to the event loop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.settings
        self._keys = [key.get_secret_value().encode() for key in service.settings.api_keys]
        self.inflight = InflightBytes(service.settings.max_inflight_bytes)
        self.exchanges: set[Exchange] = set()  # admitted, not yet answered
        service.metrics.observe("ready", "1 when requests are accepted", lambda: self.refusal() is None)

    def check_key(self, exchange: Exchange) -> None:
        """Raises UnauthorizedError. Health needs no key."""
        if not self._keys or exchange.scope["path"].startswith("/health/"):
            return
        scheme, _, token = exchange.headers.get(b"authorization", "").partition(" ")
        given = exchange.headers.get(b"x-api-key", token.strip() if scheme.lower() == "bearer" else "")
        if not _any_equal(given.encode("latin-1"), self._keys):
            raise UnauthorizedError("Send a valid key as `Authorization: Bearer` or `X-API-Key`.")

    def refusal(self) -> ServiceError | None:
        """Why nothing is accepted now; None: requests are."""
        if self._service.phase is Phase.DRAINING:
            return DrainingError("The service is stopping.")
        if self._service.phase is not Phase.READY:
            return NotReadyError(f"The models are not ready: {self._service.phase}.")
        if not self._service.engine.alive:
            return EngineDownError("The device is lost.")
        return None

    @contextmanager
    def admitted(self, exchange: Exchange, endpoint: Endpoint) -> Iterator[None]:
        """Let a request in, by its head, until it has been answered.

        Raises DrainingError, NotReadyError, EngineDownError, InvalidInputError (no model has the task),
        BodyTooLargeError, QueueFullError, BytesFullError.
        """
        if refusal := self.refusal():
            raise refusal
        if (model := self._service.default_models.get(endpoint.task)) is None:
            raise InvalidInputError(f"model: does not have the task {endpoint.task}")
        exchange.model = model
        with self.inflight.lease() as exchange.lease, self._service.metrics.inflight_requests.track_inprogress():
            # Memory is counted as it is used: a promised body holds nobody else up.
            self.check_size(exchange.content_length)
            self._check_room()
            self.inflight.check(exchange.content_length)
            self.exchanges.add(exchange)
            try:
                yield
            finally:
                self.exchanges.discard(exchange)

    def check_size(self, num_bytes: int) -> None:
        """Raises BodyTooLargeError."""
        if num_bytes > (limit := self._settings.max_body_bytes):
            raise BodyTooLargeError(f"A body may have at most {limit} bytes.")

    def accept(self, exchange: Exchange) -> None:
        """Its body is there: it will be answered. Raises QueueFullError: many may have come in meanwhile."""
        self._check_room()
        exchange.accepted = True
        exchange.lease.approach()

    def _check_room(self) -> None:
        """Requests on their way to the queue count, or a burst would pass all at once."""
        if self._service.engine.queue_items + self.inflight.num_approaching >= self._settings.max_queue_items:
            raise QueueFullError("The queue is full.")

    def drain(self) -> None:
        """Accept nothing more; what is accepted goes on."""
        self._service.phase = Phase.DRAINING
        for exchange in self.exchanges:
            exchange.closing = True

    def abort(self, cause: ServiceError) -> None:
        """Give every accepted request its answer now."""
        for exchange in tuple(self.exchanges):
            exchange.abort(cause)


def _any_equal(given: bytes, keys: Sequence[bytes]) -> bool:
    """In a time that does not tell which key, or how much of it, was right."""
    return sum(hmac.compare_digest(given, key) for key in keys) > 0


class InflightBytes:
    """The sum over all admitted requests. Bodies are refused beyond the limit; pixels, of requests that are already
    admitted, are not, but leave less room for the next. Any thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self.used = 0
        self.num_approaching = 0  # requests whose body is there, and that have put nothing into the queue yet

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
        self._approaching = False
        self.held = 0

    def approach(self) -> None:
        """The request is on its way to the queue."""
        self._approaching = True
        self._inflight.num_approaching += 1

    def arrive(self) -> None:
        """It has put its first item into the queue, or it has ended. Event loop only, as `approach`."""
        if self._approaching:
            self._approaching = False
            self._inflight.num_approaching -= 1

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
        self.arrive()
        with self._lock:
            self._closed = True
            self._inflight.add(-self.held)
