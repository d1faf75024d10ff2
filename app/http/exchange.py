"""One HTTP request and its answer: what the gate, the tasks and the log share."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from app.engine.engine import StageTimes
from app.errors import ClientGoneError, DeadlineExceededError, InvalidInputError, ServiceError
from app.http.endpoints import Endpoint, teller
from app.http.ledger import Lease
from app.http.paths import route_path
from app.metrics import Metrics
from app.problems import problem_of
from app.settings import LEAST_TIMEOUT_SECONDS

OTHER = "other"
PIECE_BYTES = 64 * 1024  # of an answer, given to the connection at a time
SLOWEST_BYTES = 1000  # a second, of a client that reads an answer or sends a body
LOOKS = 4  # at a reader, in the span over which it is judged
LINGER_SECONDS = 2.0  # for the rest of a body that nobody wants: closing at once would reset the answer away
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

access_log = logging.getLogger("blip.access")
logger = logging.getLogger("blip.gate")


def new_id() -> str:
    return f"{random.getrandbits(128):032x}"  # a name, not a secret


class Connection:
    """What lies behind the ASGI server's `send`: this one takes everything at once, as in tests without a socket."""

    @property
    def num_waiting(self) -> int:
        """Bytes that the client has not taken yet."""
        return 0

    async def drained(self) -> None:
        """Until it has taken all."""

    def abort(self) -> None:
        """End it without sending what waits."""


class Exchange:
    """Wraps `receive` and `send`, knows how far both are, and can be aborted while it has not been answered."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        endpoint: Endpoint | None,
        lease: Lease,
        metrics: Metrics,
        *,
        span_seconds: float,
        is_traced: bool = False,
    ) -> None:
        self.scope = scope
        self.path = route_path(scope)
        self.headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        given_id = self.headers.get(b"x-request-id", "")
        self.request_id = given_id if _REQUEST_ID.fullmatch(given_id) else new_id()
        self.task = (endpoint.label or endpoint.task) if endpoint is not None else None
        self.model = OTHER
        self.times = StageTimes(metrics, keep_spans=is_traced)
        self.started_at = time.monotonic()
        self.deadline: float | None = None  # monotonic seconds
        self.lease = lease
        self.body: bytes
        self.accepted = False  # whether work was done for it
        self.closing = False  # whether the connection ends with this answer
        self.streaming = False  # whether the answer is sent as it is made: it has a deadline to its end, and can fail
        self.status = 0  # 0: not answered yet
        self._metrics = metrics
        self._tell = endpoint.tell if endpoint is not None else teller(self.path)
        self._receive, self._send = receive, send
        self._connection: Connection = scope.get("blip.connection") or Connection()
        self._span_seconds = span_seconds  # over which a reader must have taken enough
        self._written = 0  # bytes of the answer that were given to the connection
        self._taken = deque([0], LOOKS)  # of those, read by the client: at the looks of the last span
        self._timer: asyncio.TimerHandle | None = None
        self._limit: asyncio.Timeout | None = None
        self._seconds: float | None = None  # from the first byte to the last
        self._cause: ServiceError | None = None  # of an abort; None: the deadline
        length = self.headers.get(b"content-length", "0")
        self.content_length = int(length) if length.isascii() and length.isdigit() else 0
        self._body_complete = not self.content_length and b"transfer-encoding" not in self.headers

    # --- the request ---

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._body_complete = True
        return message

    def timeout_seconds(self) -> float | None:
        """The client's X-Request-Timeout. Raises InvalidInputError."""
        given = self.headers.get(b"x-request-timeout")
        if given is None:
            return None
        with suppress(ValueError):
            if LEAST_TIMEOUT_SECONDS <= (seconds := float(given)) < inf:  # nor is NaN
                return seconds
        raise InvalidInputError(f"X-Request-Timeout: must be a number of seconds, at least {LEAST_TIMEOUT_SECONDS}")

    @asynccontextmanager
    async def limited(self, seconds: float | None) -> AsyncIterator[None]:
        """Cancels what is inside when the time is over, or when the exchange is aborted: raises the reason. Once the
        answer has begun, its reader is watched instead."""
        if seconds is not None:
            self.deadline = self.started_at + seconds
        try:
            async with asyncio.timeout(self._seconds_left()) as self._limit:
                yield
        except TimeoutError:
            if self._limit is not None and self._limit.expired():
                raise self._cause or DeadlineExceededError("The deadline of the request passed.") from None
            raise
        finally:
            self._limit = None

    def limit(self, seconds: float) -> None:
        """So many from now at most: inside of `limited`."""
        self.deadline = min(self.deadline or inf, time.monotonic() + seconds)
        if self._limit is not None and (left := self._seconds_left()) is not None:
            self._limit.reschedule(asyncio.get_running_loop().time() + left)

    def _seconds_left(self) -> float | None:
        return None if self.deadline is None else self.deadline - time.monotonic()

    def abort(self, cause: ServiceError) -> None:
        if self._limit is not None and not self._is_made and not self._limit.expired():
            self._cause = cause
            self._limit.reschedule(asyncio.get_running_loop().time())

    @property
    def _is_made(self) -> bool:
        """Whether all of the answer is there, and only its reader takes time."""
        return bool(self.status) and not self.streaming

    async def watch(self) -> None:
        """Abort when the client leaves. To be run when the body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.abort(ClientGoneError("The client left."))

    # --- the answer ---

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if len(body) <= PIECE_BYTES and (more or self._body_complete):
            await self._send(message)
            self._written += len(body)
            return
        await self._send_in_pieces(body)
        if not more:
            self._seconds = time.monotonic() - self.started_at
            await self._linger()
            await self._send({"type": "http.response.body", "body": b""})

    async def _begin(self, message: Message) -> None:
        self.status = message["status"]
        self.closing = self.closing or not self._body_complete
        if self._limit is not None and self._is_made:
            self._limit.reschedule(None)
        self._timer = asyncio.get_running_loop().call_later(self._span_seconds / LOOKS, self._watch_reader)
        message["headers"] = [*message.get("headers", ()), *self._headers()]
        await self._send(message)

    async def _send_in_pieces(self, body: bytes) -> None:
        """Counted until the client has read it; each piece waits for the connection to take the one before."""
        with self.lease.answer(len(body)) as read:
            for start in range(0, len(body), PIECE_BYTES):
                piece = body[start : start + PIECE_BYTES]
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
                self._written += len(piece)
                read(len(piece))
            await self._connection.drained()

    def _watch_reader(self) -> None:
        """Cut off who reads less than SLOWEST_BYTES a second: a connection holds memory."""
        waiting = self._connection.num_waiting
        taken = self._written - waiting
        over_a_span = len(self._taken) == LOOKS
        if waiting and over_a_span and taken - self._taken[0] < SLOWEST_BYTES * self._span_seconds:
            self._metrics.readers_cut_off.inc()
            logger.warning("a reader was too slow", extra={"fields": {"request_id": self.request_id}})
            self._connection.abort()
            return
        self._taken.append(taken)
        self._timer = asyncio.get_running_loop().call_later(self._span_seconds / LOOKS, self._watch_reader)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        stages = [*self.times.seconds.items(), ("total", time.monotonic() - self.started_at)]
        timing = ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in stages)
        headers = [(b"x-request-id", self.request_id.encode()), (b"server-timing", timing.encode())]
        return [*headers, (b"connection", b"close")] if self.closing else headers

    async def _linger(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self._body_complete and (await self.receive())["type"] != "http.disconnect":
                    pass

    async def fail(self, error: Exception) -> None:
        """Answer with a problem, unless it is too late to. In a stream it is the last event."""
        status = problem_of(error).status
        if status == 500:
            logger.error("request failed", exc_info=error, extra={"fields": {"request_id": self.request_id}})
        if isinstance(error, ClientGoneError):
            self.status = status
        elif not self.status:
            await self._tell(error, self.request_id)(self.scope, self.receive, self.send)
        elif self.streaming:
            self.status = status
            told = bytes(self._tell(error, self.request_id).body)
            await self.send({"type": "http.response.body", "body": b"data: %b\n\n" % told})

    def account(self) -> None:
        """Count and log, once, at the end."""
        if self._timer is not None:
            self._timer.cancel()
        seconds = time.monotonic() - self.started_at if self._seconds is None else self._seconds
        task = self.task or OTHER
        self._metrics.requests.labels(task, self.model, str(self.status)).inc()
        if self.task:
            self._metrics.request_seconds.labels(task).observe(seconds)
        fields: dict[str, Any] = {"request_id": self.request_id, "task": task, "model": self.model}
        fields |= {"status": self.status, "total_ms": round(1000 * seconds, 1)}
        fields |= {f"{stage}_ms": round(1000 * value, 1) for stage, value in self.times.seconds.items()}
        access_log.log(logging.INFO if self.task else logging.DEBUG, "request", extra={"fields": fields})
