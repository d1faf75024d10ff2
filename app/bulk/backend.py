"""Who answers: a service elsewhere, or one in this process. What follows is the same for both."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from app.start.bulk import UsageError

if TYPE_CHECKING:
    from app.settings import Settings

# Nobody waits for one picture of a folder: a slow model may take its time.
UNHURRIED = {"request_timeout_seconds": 600, "stuck_seconds": 1200, "log_level": "warning"}
FOR_OTHERS = {"api_keys": (), "api_keys_file": None, "ui": False, "tracing": False}
POLL_SECONDS = 0.05
HERE = "http://in-this-process"


def elsewhere(url: str) -> httpx.AsyncBaseTransport:
    """With the environment's proxies, which httpx looks up only for transports of its own. Raises UsageError."""
    try:
        address = urlsplit(url)
    except ValueError:
        address = urlsplit("")
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UsageError(f"--url: {url.rpartition('@')[2]} is no address such as http://127.0.0.1:8000")
    proxy = None if proxy_bypass(address.hostname) else getproxies().get(address.scheme)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncHTTPTransport(limits=limits, proxy=proxy)


@asynccontextmanager
async def in_this_process(
    flags: Mapping[str, Any], make: Callable[[Settings], Any] | None = None
) -> AsyncIterator[httpx.AsyncBaseTransport]:
    """`make`: the application, with its service in its state; default: app.main's. Raises UsageError, and RuntimeError
    for what keeps the models from being loaded."""
    from pydantic import ValidationError

    from app.logs import configure_logging
    from app.settings import Settings, variable
    from app.start.commandline import explain
    from app.start.listing import check_profile
    from app.start.preflight import check_device

    unset = {name: value for name, value in UNHURRIED.items() if not os.environ.get(variable(name))}
    try:
        settings = Settings(**(unset | FOR_OTHERS | dict(flags)))  # type: ignore[arg-type]
    except ValidationError as error:
        raise UsageError(explain(error, flags)) from None
    configure_logging(settings)
    check_device(settings.device)
    check_profile(settings)
    app = (make or _of_main())(settings)
    async with app.router.lifespan_context(app):
        try:
            await _ready(app.state.service)
        except asyncio.CancelledError:  # Ctrl-C. A thread that loads does not survive the interpreter's own end
            os._exit(128 + signal.SIGINT)
        yield httpx.ASGITransport(app)


def _of_main() -> Callable[[Settings], Any]:
    from app.main import create_app  # not before it is needed

    return create_app


async def _ready(service: Any) -> None:
    while not service.models:  # it is loaded by a thread, and told to nobody
        if service.failure is not None:
            raise RuntimeError(f"{service.failure}")
        await asyncio.sleep(POLL_SECONDS)
