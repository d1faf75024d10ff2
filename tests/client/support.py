"""Clients over services in this process: the fake's, and ones that say what they are told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from blip_client import AsyncClient
from tests.app.support import Lab, lab


@asynccontextmanager
async def asking(**settings: Any) -> AsyncIterator[tuple[AsyncClient, Lab]]:
    """A client of the service over fakes."""
    async with lab(**settings) as service, AsyncClient(transport=httpx.ASGITransport(service.app)) as client:
        yield client, service


class Script(httpx.MockTransport):
    """Answers each request with the next of these, or raises it; the last one for ever. Keeps what was asked."""

    def __init__(self, *outcomes: httpx.Response | Exception) -> None:
        self.requests: list[httpx.Request] = []
        self._outcomes = outcomes
        super().__init__(self._next)

    def _next(self, request: httpx.Request) -> httpx.Response:
        outcome = self._outcomes[min(len(self.requests), len(self._outcomes) - 1)]
        self.requests.append(request)
        if isinstance(outcome, Exception):
            raise outcome
        return httpx.Response(outcome.status_code, headers=outcome.headers, content=outcome.content)
