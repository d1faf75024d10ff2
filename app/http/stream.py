"""An answer that is sent while it is made: server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class EventStream(Response):
    """Of JSON. Begins with its first event, so that what fails before has a status. Not starlette's, which would take
    the news that the client left from the exchange."""

    def __init__(self, events: AsyncGenerator[bytes], last: bytes = b"data: [DONE]\n\n") -> None:
        self._events = events
        self._last = last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        headers.append((b"x-accel-buffering", b"no"))  # nginx would gather it
        begun = False
        async with aclosing(self._events) as events:
            async for event in events:
                if not begun:
                    begun = scope["blip.exchange"].streaming = True
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": b"data: %b\n\n" % event, "more_body": True})
        await send({"type": "http.response.body", "body": self._last})
