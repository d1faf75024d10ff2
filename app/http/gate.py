"""The one door of the application: every request passes it, and every failure gets its answer here.

Pure ASGI: starlette's BaseHTTPMiddleware would hide that a client left.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import ClientGoneError, RefusedError, SlowBodyError, problem_of
from app.http.admission import Admission
from app.http.endpoints import Endpoint, Endpoints, Function
from app.http.exchange import Exchange
from app.http.tracing import Tracing
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        endpoint = self._endpoints.get(scope["path"]) if scope["method"] == "POST" else None
        exchange = Exchange(scope, receive, send, endpoint, self._service.metrics, is_traced=self._tracing is not None)
        scope["blip.exchange"] = exchange
        exchange.closing = self._service.phase is Phase.DRAINING
        try:
            self._admission.check_key(exchange)
            if endpoint is None:
                await self._app(scope, exchange.receive, exchange.send)
            else:
                await self._serve(exchange, endpoint)
        except Exception as error:
            if isinstance(error, RefusedError) and not exchange.accepted:
                self._service.metrics.rejected.labels(problem_of(error).slug).inc()
            await exchange.fail(error)
        finally:
            exchange.account()
            if self._tracing is not None and endpoint is not None:
                self._tracing.report(exchange)

    async def _serve(self, exchange: Exchange, endpoint: Endpoint) -> None:
        """Admitted, its body read, answered before its deadline; dropped when the client leaves."""
        seconds = exchange.timeout_seconds(self._service.settings.request_timeout_seconds)
        with self._admission.admitted(exchange, endpoint):
            async with exchange.limited(seconds):
                exchange.body = await self._read_body(exchange)
                self._admission.accept(exchange)
                await self._answer(exchange, endpoint.function)

    async def _read_body(self, exchange: Exchange) -> bytes:
        seconds = self._service.settings.body_timeout_seconds
        chunks: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(seconds):
                while more:
                    message = await exchange.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError("The client left.")
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    self._admission.check_size(size)
                    exchange.lease.add_body(len(chunks[-1]))
                    more = message.get("more_body", False)
        except TimeoutError:
            raise SlowBodyError(f"The body took more than {seconds:g} s.") from None
        return b"".join(chunks)

    async def _answer(self, exchange: Exchange, function: Function) -> None:
        watcher = asyncio.create_task(exchange.watch())
        try:
            response = await function(Request(exchange.scope))
            await response(exchange.scope, exchange.receive, exchange.send)
        finally:
            watcher.cancel()
