"""Whether a request may come in, and what it holds while it is served: its key, the phase of the service, room in the
queue, bytes in flight."""

from __future__ import annotations

import hmac
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from app.engine.batching import Kind
from app.errors import (
    BodyTooLargeError,
    DecodersBusyError,
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
from app.http.ledger import Ledger
from app.service import Phase, Service
from models.base import lacking

UNSEEN_SECONDS = 0.002  # taken for an item of a kind of which none has finished yet
OVERHEAD = 1.25  # for what passes between device calls
MOST_RETRY_SECONDS = 30
DOCUMENTATION = ("/", "/docs", "/docs/try.js", "/openapi.json")  # with keys, it names no model


class Admission:
    """Asked before a body is read, when it is there, and once the form is read. Belongs to the event loop.

    Rules for the queue: each admitted request that has something to run keeps one place in it, so that it goes on; and
    what all of them have left to run, by the rates seen, must be done before the newcomer's deadline. Of that time the
    requests of one API key get half at most. Who comes when nothing is left to run is admitted.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.settings
        self._keys = [key.get_secret_value().encode() for key in service.settings.api_keys]
        self.ledger = Ledger(service.settings.max_inflight_bytes)
        self.exchanges: set[Exchange] = set()  # admitted, not yet answered
        self._accepted: set[Exchange] = set()  # those of them whose body is there
        observe = service.metrics.observe
        observe("ready", "1 when requests are accepted", lambda: self.refusal() is None)
        observe("reserved_items", "Places in the queue that are kept for admitted requests", self._num_reserved)
        observe(
            "admitted_seconds",
            "What admitted work will take the device, by the rates seen",
            lambda: self._seconds(self.ledger.unfinished),
        )
        observe("inflight_bytes", "Bodies, pixels and answers of admitted requests", lambda: self.ledger.bytes)
        observe("answer_bytes", "Bytes of answers that clients have not read yet", lambda: self.ledger.answer_bytes)

    def check_key(self, exchange: Exchange) -> None:
        """Raises UnauthorizedError. Health, the documentation and the page need no key."""
        path = exchange.path
        if not self._keys or path in DOCUMENTATION or path.startswith(("/health/", "/ui/")):
            return
        scheme, _, token = exchange.headers.get(b"authorization", "").partition(" ")
        given = exchange.headers.get(b"x-api-key", token.strip() if scheme.lower() == "bearer" else "")
        exchange.lease.key = _equal(given.encode("latin-1"), self._keys)
        if exchange.lease.key is None:
            raise UnauthorizedError("Send a valid key as `Authorization: Bearer` or `X-API-Key`.")

    def refusal(self) -> ServiceError | None:
        """Why nothing is accepted now; None: requests are."""
        if self._service.phase is Phase.DRAINING:
            return DrainingError("The service is stopping.")
        if self._service.phase is not Phase.READY:
            return NotReadyError(f"The models are not ready: {self._service.phase}.")
        if not self._service.engine.alive:
            return EngineDownError("The device is lost.")
        if sickness := self._service.decoder.sickness():
            return DecodersBusyError(sickness)
        return None

    @contextmanager
    def admitted(self, exchange: Exchange, endpoint: Endpoint) -> Iterator[None]:
        """Let a request in, by its head, until it has been answered.

        Raises DrainingError, NotReadyError, EngineDownError, DecodersBusyError, InvalidInputError (no model
        has the task), BodyTooLargeError, QueueFullError, BytesFullError.
        """
        if refusal := self.refusal():
            raise refusal
        models = [self._service.default_models[task] for task in endpoint.tasks if task in self._service.default_models]
        if not models:
            raise InvalidInputError(f"model: {lacking(self._service.models.values(), endpoint.task)}")
        exchange.model = models[0]
        with self._service.metrics.inflight_requests.track_inprogress():
            # Memory is counted as it is used: a promised body holds nobody else up.
            self.check_size(exchange.content_length)
            self._check_room()
            self.ledger.check_bytes(exchange.content_length)
            self.exchanges.add(exchange)
            try:
                yield
            finally:
                self.exchanges.discard(exchange)
                self._accepted.discard(exchange)

    def check_size(self, num_bytes: int) -> None:
        """Raises BodyTooLargeError."""
        if num_bytes > (limit := self._settings.max_body_bytes):
            raise BodyTooLargeError(f"A body may have at most {limit} bytes.")

    def accept(self, exchange: Exchange) -> None:
        """Its body is there: it has a place in the queue. Raises QueueFullError: many may have come in meanwhile."""
        self._check_room()
        self._check_work(exchange, {})  # before the form is read, which takes time when there are many
        exchange.accepted = True
        exchange.lease.expect()
        self._accepted.add(exchange)

    @contextmanager
    def set_back(self, exchange: Exchange) -> Iterator[None]:
        """While images that it names by URL are fetched it has no place in the queue, and its work is not counted, as
        while its body came: those who only wait hold nobody up. Raises QueueFullError."""
        self._accepted.discard(exchange)
        exchange.accepted = False
        work = exchange.lease.put_off()
        yield
        self.accept(exchange)
        self.admit_work(exchange, work)

    def admit_work(self, exchange: Exchange, work: Mapping[Kind, int]) -> None:
        """Its form is read, and this is what is to run for it. Raises QueueFullError."""
        try:
            self._check_work(exchange, work)
        except QueueFullError:
            exchange.accepted = False
            raise
        exchange.lease.take_on(work)

    def may_add(self, num_own: int) -> bool:
        """Whether a request with so many unfinished items may put one more into the queue: one always; else while it
        has less than two batches and the queue is less than half full."""
        waiting, limit = self._service.engine.queue_items, self._settings.max_queue_items
        few = num_own < 2 * self._settings.max_batch_size and 2 * waiting < limit
        return num_own == 0 or (few and waiting + len(self._accepted) < limit)

    def _check_room(self) -> None:
        if self._service.engine.queue_items + self._num_reserved() >= self._settings.max_queue_items:
            raise QueueFullError("The queue is full.")

    def _check_work(self, exchange: Exchange, work: Mapping[Kind, int]) -> None:
        seconds_left = (exchange.deadline or math.inf) - time.monotonic()
        self._check_seconds(self.ledger.unfinished, work, seconds_left)
        if exchange.lease.key is not None:
            self._check_seconds(self.ledger.of_key(exchange.lease.key), work, seconds_left / 2)

    def _check_seconds(self, unfinished: Counter[Kind], work: Mapping[Kind, int], seconds_left: float) -> None:
        if not unfinished:
            return
        seconds = OVERHEAD * self._seconds(unfinished + Counter(work))
        if seconds > seconds_left:
            wait = min(MOST_RETRY_SECONDS, math.ceil(seconds - seconds_left))
            raise QueueFullError("More work is waiting than can be done before the deadline.", retry_after_seconds=wait)

    def _seconds(self, work: Mapping[Kind, int]) -> float:
        """What it will take the device, by the rates seen."""
        return self._service.engine.rates.seconds(work, UNSEEN_SECONDS)

    def _num_reserved(self) -> int:
        """Places of requests that have nothing in the queue now, and will have."""
        waiting = self._service.engine.owners
        return sum(one.lease.will_submit and one not in waiting for one in self._accepted)

    def drain(self) -> None:
        """Accept nothing more; what is accepted goes on."""
        self._service.phase = Phase.DRAINING
        for exchange in self.exchanges:
            exchange.closing = True

    def abort(self, cause: ServiceError) -> None:
        """Give every accepted request its answer now."""
        for exchange in tuple(self.exchanges):
            exchange.abort(cause)


def _equal(given: bytes, keys: Sequence[bytes]) -> int | None:
    """Which key it is, in a time that does not tell which, or how much of it, was right."""
    equal = [number for number, key in enumerate(keys) if hmac.compare_digest(given, key)]
    return equal[0] if equal else None
