"""The process: uvicorn, but for what signals do."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import NoReturn

import uvicorn

from app.errors import DrainingError
from app.http.admission import Admission
from app.http.protocol import Protocol
from app.logs import complain, configure_logging
from app.main import Load, create_app, load_models
from app.service import Phase, Service
from app.settings import Settings
from app.start.listener import url_of

KEEP_ALIVE_SECONDS = 75  # longer than the proxies in front: who closes first loses no request
log = logging.getLogger("blip")


class Server(uvicorn.Server):
    """On the first signal readiness goes, the listener stays open to tell new work 503, and accepted work completes.
    The second signal stops at once. The process has ended when `drain_seconds` are over. While the models load nothing
    is accepted, and the first signal ends the process."""

    def __init__(self, config: uvicorn.Config, service: Service, admission: Admission) -> None:
        config.timeout_graceful_shutdown = service.settings.farewell_seconds / 3  # type: ignore[assignment]
        super().__init__(config)
        self._service = service
        self._admission = admission
        self._to_announce: list[socket.socket] = []

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGHUP too, unless it is ignored, as under nohup."""
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self.handle_exit)
        with super().capture_signals():
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            log.info("listening on %s, and loading %s", url_of(listener), self._service.settings.profile)
        self._to_announce = sockets or []

    async def on_tick(self, counter: int) -> bool:
        if self._to_announce and self._service.phase is Phase.READY:
            log.info("ready: %s/ (%s)", url_of(self._to_announce[0]), ", ".join(self._service.models))
            self._to_announce = []
        return await super().on_tick(counter) or self._service.failure is not None

    async def main_loop(self) -> None:
        await super().main_loop()
        if self._service.phase is Phase.READY:
            await self._drain()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._service.phase is Phase.LOADING:
            _leave(0)
        await super().shutdown(sockets)

    async def _drain(self) -> None:
        self._admission.drain()
        log.info("draining: %d accepted requests", len(self._admission.exchanges))
        settings = self._service.settings
        give_up = time.monotonic() + settings.drain_seconds - settings.farewell_seconds
        # Polled, as `force_exit` is set by a signal handler.
        while self._admission.exchanges and not self.force_exit and time.monotonic() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        self._admission.abort(DrainingError("The service is stopping, and had no time left for this request."))


def serve(settings: Settings, sockets: list[socket.socket], load: Load = load_models) -> int:
    """Serve on these listening sockets until a signal, or until loading fails. Returns the exit code."""
    configure_logging(settings)
    try:
        app = create_app(settings, load)
    except RuntimeError as error:
        return complain(error)
    service: Service = app.state.service
    server = Server(
        uvicorn.Config(
            app,
            http=partial(Protocol, head_timeout_seconds=settings.body_timeout_seconds),  # type: ignore[arg-type]
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nobody asks for the client's address
            ws="none",
            lifespan="on",
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ),
        service,
        app.state.admission,
    )
    server.run(sockets)
    code = 0 if service.failure is None else complain(service.failure)
    if service.phase is Phase.LOADING or service.engine.busy_seconds():
        _leave(code)
    return code


def _leave(code: int) -> NoReturn:
    """End the process without the interpreter's own end, which a thread that loads, or is in a device call, does not
    survive: when it comes back from C++ it is made to exit, and takes the process with it (SIGABRT)."""
    logging.shutdown()
    os._exit(code)
