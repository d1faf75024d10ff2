"""Pages of other origins: what a browser lets them ask, and read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Scope, Send

from app.wire.answers import ITM_HEADER

EXPOSED = ("X-Request-ID", "Retry-After", "Server-Timing", ITM_HEADER)


class Origins:
    """Starlette's rules, applied by the gate. As a middleware outside of it they would answer preflights past it,
    without a request id, and those of others not as a problem; inside, errors would go without their headers."""

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        self._rules = CORSMiddleware(
            app,
            allow_origins=allowed,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=(
                "*",
            ),  # what was asked for: libraries have headers of their own, and unknown ones do nothing
            allow_private_network=True,
            expose_headers=EXPOSED,
        )

    def telling(self, scope: Scope, send: Send) -> Send:
        """`send`, with the headers that let a page of an allowed origin read the answer."""
        return partial(self._rules.send, send=send, request_headers=Headers(scope=scope))

    def preflight(self, scope: Scope) -> Response | None:
        """The answer to a browser that asks for an allowed origin whether a page may ask. It has no key yet."""
        headers = Headers(scope=scope)
        if scope["method"] != "OPTIONS" or not {"origin", "access-control-request-method"} <= set(headers.keys()):
            return None
        answer = self._rules.preflight_response(headers)
        return answer if answer.status_code == 200 else None
