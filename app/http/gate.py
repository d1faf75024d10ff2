"""The one door: identity, keys, readiness, admission, body, deadline, and the answer when any of it fails.

Pure ASGI: what starlette calls BaseHTTPMiddleware would hide that a client left.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import (
    BodyTooLargeError,
    BytesFullError,
    ClientGoneError,
    DrainingError,
    EngineDownError,
    NotReadyError,
    QueueFullError,
    SlowBodyError,
    UnauthorizedError,
    problem_of,
)
from app.http.exchange import Exchange
from app.service import Phase, Service
from models.base import Task

REFUSALS = (
    UnauthorizedError,
    NotReadyError,
    DrainingError,
    EngineDownError,
    QueueFullError,
    BytesFullError,
    BodyTooLargeError,
    SlowBodyError,
)


Endpoint = Callable[[Request], Awaitable[Response]]


class Gate:
    """Calls the endpoints of the tasks itself: the way through the router would take longer than all that they do.
    It has their routes too, which document them and refuse other methods."""

    def __init__(self, app: ASGIApp, service: Service, endpoints: Mapping[Task, Endpoint]) -> None:
        self._app = app
        self._service = service
        self._endpoints = endpoints
        self._keys = [key.get_secret_value().encode() for key in service.settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        tracing = self._service.tracing
        exchange = Exchange(scope, receive, send, self._service.metrics, is_traced=tracing is not None)
        scope["blip.exchange"] = exchange
        exchange.closing = self._service.phase is Phase.DRAINING
        try:
            self._check_key(exchange)
            if exchange.task is None:
                await self._app(scope, exchange.receive, exchange.send)
            else:
                await self._serve(exchange, exchange.task)
        except Exception as error:
            if isinstance(error, REFUSALS) and not exchange.accepted:
                self._service.metrics.rejected.labels(problem_of(error).slug).inc()
            await exchange.fail(error)
        finally:
            exchange.account()
            if tracing is not None and exchange.task is not None:
                tracing.report(exchange)

    def _check_key(self, exchange: Exchange) -> None:
        if not self._keys or exchange.scope["path"].startswith("/health/"):
            return
        scheme, _, token = exchange.headers.get(b"authorization", "").partition(" ")
        given = exchange.headers.get(b"x-api-key", token.strip() if scheme.lower() == "bearer" else "")
        if not _any_equal(given.encode("latin-1"), self._keys):
            raise UnauthorizedError("Send a valid key as `Authorization: Bearer` or `X-API-Key`.")

    async def _serve(self, exchange: Exchange, task: Task) -> None:
        """A task: admitted, its body read, answered before its deadline; dropped when the client leaves."""
        service, settings = self._service, self._service.settings
        seconds = exchange.timeout_seconds(settings.request_timeout_seconds)
        if refusal := service.refusal():
            raise refusal
        exchange.model = service.default_model(task)
        with service.inflight.lease() as exchange.lease, service.metrics.inflight_requests.track_inprogress():
            self._admit(exchange)
            with service.admitted(exchange):
                async with exchange.limited(seconds):
                    exchange.body = await self._read_body(exchange)
                    self._check_room()  # again: many may have come in while their bodies were on their way
                    exchange.accepted = True
                    service.approaching.add(exchange)
                    await self._answer(exchange, self._endpoints[task])

    def _admit(self, exchange: Exchange) -> None:
        """By what the client says. Memory is counted as it is used: a promised body holds nobody else up."""
        if exchange.content_length > self._service.settings.max_body_bytes:
            raise self._too_large()
        self._check_room()
        self._service.inflight.check(exchange.content_length)

    def _check_room(self) -> None:
        if not self._service.has_room:
            raise QueueFullError("The queue is full.")

    async def _read_body(self, exchange: Exchange) -> bytes:
        settings = self._service.settings
        chunks: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(settings.body_timeout_seconds):
                while more:
                    message = await exchange.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError("The client left.")
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > settings.max_body_bytes:
                        raise self._too_large()
                    exchange.lease.add_body(len(chunks[-1]))
                    more = message.get("more_body", False)
        except TimeoutError:
            raise SlowBodyError(f"The body took more than {settings.body_timeout_seconds:g} s.") from None
        return b"".join(chunks)

    async def _answer(self, exchange: Exchange, endpoint: Endpoint) -> None:
        watcher = asyncio.create_task(exchange.watch())
        try:
            response = await endpoint(Request(exchange.scope))
            await response(exchange.scope, exchange.receive, exchange.send)
        finally:
            watcher.cancel()

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(f"A body may have at most {self._service.settings.max_body_bytes} bytes.")


def _any_equal(given: bytes, keys: Sequence[bytes]) -> bool:
    """In a time that does not tell which key, or how much of it, was right."""
    return sum(hmac.compare_digest(given, key) for key in keys) > 0
