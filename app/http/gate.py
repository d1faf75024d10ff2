"""The one door of the application: every request passes it, and every failure gets its answer here.

Pure ASGI: starlette's BaseHTTPMiddleware would hide that a client left.
"""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import ClientGoneError, RefusedError, SlowBodyError
from app.http.admission import Admission
from app.http.endpoints import Endpoint, Endpoints, Function
from app.http.exchange import SLOWEST_BYTES, Exchange
from app.http.origins import Origins
from app.http.paths import route_path, routed
from app.http.tracing import Tracing
from app.problems import problem_of
from app.service import Phase, Service


class Gate:
    """Calls the table's endpoints itself, past the router, which costs more than the endpoint. The router has their
    routes too: they document them, and refuse other methods."""

    def __init__(
        self, app: ASGIApp, service: Service, admission: Admission, endpoints: Endpoints, tracing: Tracing | None
    ) -> None:
        self._app = app
        self._service = service
        self._admission = admission
        self._endpoints = endpoints
        self._tracing = tracing
        settings = service.settings
        self._prefix = settings.root_path
        self._origins = Origins(app, settings.cors_origins) if settings.cors_origins else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = routed(scope, self._prefix)
        endpoint = self._endpoints.get(route_path(scope)) if scope["method"] == "POST" else None
        if self._origins is not None:
            send = self._origins.telling(scope, send)
        with self._admission.ledger.lease() as lease:
            exchange = Exchange(
                scope,
                receive,
                send,
                endpoint,
                lease,
                self._service.metrics,
                span_seconds=self._service.settings.body_timeout_seconds,
                is_traced=self._tracing is not None,
            )
            scope["blip.exchange"] = exchange
            exchange.closing = self._service.phase is Phase.DRAINING
            try:
                await self._pass(exchange, endpoint)
            finally:
                # Its body is counted no more. Scope and exchange know each other: the collector would find them late.
                del scope["blip.exchange"]

    async def _pass(self, exchange: Exchange, endpoint: Endpoint | None) -> None:
        try:
            if self._origins is not None and (answer := self._origins.preflight(exchange.scope)):
                await answer(exchange.scope, exchange.receive, exchange.send)
                return
            self._admission.check_key(exchange)
            if endpoint is None:
                await self._app(exchange.scope, exchange.receive, exchange.send)
            else:
                await self._serve(exchange, endpoint)
        except Exception as error:
            if isinstance(error, RefusedError) and not exchange.accepted:
                self._service.metrics.rejected.labels(problem_of(error).slug).inc()
            await exchange.fail(error)
            _forget_frames(error)
        finally:
            exchange.account()
            if self._tracing is not None and endpoint is not None:
                self._tracing.report(exchange)

    async def _serve(self, exchange: Exchange, endpoint: Endpoint) -> None:
        """Admitted, its body read, answered before its deadline; dropped when the client leaves."""
        seconds = exchange.timeout_seconds()
        with self._admission.admitted(exchange, endpoint):
            async with exchange.limited(seconds):
                exchange.body = await self._read_body(exchange)
                exchange.limit(self._service.settings.request_timeout_seconds)
                self._admission.accept(exchange)
                await self._answer(exchange, endpoint.function)

    async def _read_body(self, exchange: Exchange) -> bytes:
        """As long as it makes progress. Raises SlowBodyError, BodyTooLargeError, ClientGoneError, and what
        `Lease.add_body` does."""
        settings = self._service.settings
        progress = Progress(settings.body_timeout_seconds, settings.body_max_seconds)
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            try:
                async with asyncio.timeout(progress.seconds_left(time.monotonic(), size)):
                    message = await exchange.receive()
            except TimeoutError:
                raise progress.failure() from None
            if message["type"] == "http.disconnect":
                raise ClientGoneError("The client left.")
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            self._admission.check_size(size)
            exchange.lease.add_body(len(chunks[-1]))
            more = message.get("more_body", False)
        return b"".join(chunks)

    async def _answer(self, exchange: Exchange, function: Function) -> None:
        watcher = asyncio.create_task(exchange.watch())
        try:
            response = await function(Request(exchange.scope))
            await response(exchange.scope, exchange.receive, exchange.send)
        finally:
            watcher.cancel()


def _forget_frames(error: BaseException | None) -> None:
    """Of the functions that a failure came through: they know the body, and often the task that knows the failure.
    The collector would find such a cycle late."""
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


class Progress:
    """Of a body: for how long it may be waited for. A stall ends it, and so does a trickle, span by span."""

    def __init__(self, span_seconds: float, max_seconds: float) -> None:
        self._span_seconds = span_seconds
        self._max_seconds = max_seconds
        self._began: float | None = None
        self._span_began = 0.0
        self._span_size = 0  # bytes that were there when it began

    def seconds_left(self, now: float, size: int) -> float:
        """For the next piece, when `size` bytes are there; 0 or less: it is too late."""
        if self._began is None:
            self._began = self._span_began = now
        if now - self._span_began >= self._span_seconds:
            if size - self._span_size < SLOWEST_BYTES * self._span_seconds:
                return 0.0
            self._span_began, self._span_size = now, size
        return min(self._span_seconds, self._began + self._max_seconds - now)

    def failure(self) -> SlowBodyError:
        return SlowBodyError(
            f"The body came too slowly: nothing for {self._span_seconds:g} s, less than {SLOWEST_BYTES} bytes a second "
            f"over such a time, or more than {self._max_seconds:g} s in all."
        )
