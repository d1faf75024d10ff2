"""Who is measured: two peers and this service, each as a server of its own."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bench.processes import ended, peak_bytes
from bench.service import RunningService, free_port, running, running_service

TIMEOUT_SECONDS = 1800  # of a request: sixteen clients wait for each other
CACHE_BYTES = 256 * 2**20
PROFILE = "random-base"
LOG_LINES = 3  # of a server that did not start


@dataclass(frozen=True, slots=True)
class Contender:
    key: str  # a to f, as in the tables
    kind: str  # wrapper, litserve, ours
    dtype: str
    clients: tuple[int, ...] = (1, 16)

    @property
    def name(self) -> str:
        kinds = {"wrapper": "FastAPI + transformers", "litserve": "LitServe + transformers", "ours": "ours"}
        return f"{kinds[self.kind]}, {self.dtype}"


@dataclass(slots=True)
class Server:
    contender: Contender
    service: RunningService
    start_seconds: float  # interpreter, weights, warm-up

    @property
    def pid(self) -> int:
        return self.service.process.pid


def contenders(half: str, quick: bool = False) -> tuple[list[Contender], dict[str, str]]:
    """The contenders for a machine with this half precision (`fp32`: none), and why others are left out."""
    every = [
        Contender("a", "wrapper", "fp32", (1,)),
        Contender("b", "wrapper", half, (1,)),
        Contender("c", "litserve", half),
        Contender("d", "ours", "fp32"),
        Contender("e", "ours", half),
        Contender("f", "ours", "int8"),
    ]
    left_out: dict[str, str] = {}
    if half == "fp32":
        left_out = dict.fromkeys(("b", "e"), "the machine computes in no half precision (bf16 would be emulated)")
    elif quick:
        left_out = dict.fromkeys(("b", "d"), "a quick run has one dtype of each beside int8")
    return [contender for contender in every if contender.key not in left_out], left_out


class Stage:
    """Holds one server at a time: others, even asleep, cost it up to a third of its rate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._server: Server | None = None
        self.start_seconds: dict[str, list[float]] = {}  # by contender
        self.peak_bytes: dict[str, int] = {}

    def server(self, contender: Contender) -> Server:
        """Of this contender, started if it is not there. Raises RuntimeError if it does not start."""
        if self._server is None or self._server.contender != contender:
            self.clear()
            self._server = self._stack.enter_context(serving(contender, self.folder))
            self.start_seconds.setdefault(contender.key, []).append(self._server.start_seconds)
        return self._server

    def clear(self) -> None:
        if self._server is not None:
            key = self._server.contender.key
            self.peak_bytes[key] = max(peak_bytes(self._server.pid), self.peak_bytes.get(key, 0))
            self._server = None
        self._stack.close()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()


@contextmanager
def serving(contender: Contender, folder: Path) -> Iterator[Server]:
    """Start it. Raises RuntimeError, with the end of its log, if it does not start."""
    with tempfile.TemporaryFile() as log, ExitStack() as stack:
        started = time.monotonic()
        try:
            service = stack.enter_context(_start(contender, folder, log))
        except RuntimeError as error:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines()[-LOG_LINES:]
            raise RuntimeError(" / ".join([str(error), *lines])) from error
        seconds = time.monotonic() - started
        stack.enter_context(ended(service.process.pid))
        yield Server(contender, service, seconds)


def _start(contender: Contender, folder: Path, log: IO[bytes]) -> AbstractContextManager[RunningService]:
    if contender.kind == "ours":
        return running_service(
            log=log,
            catalog=folder / "catalog.toml",
            profile=PROFILE,
            dtype=contender.dtype,
            feature_cache_bytes=CACHE_BYTES,
            request_timeout_seconds=TIMEOUT_SECONDS,
            stuck_seconds=2 * TIMEOUT_SECONDS,
        )
    module = {"wrapper": "bench.peers.wrapper", "litserve": "bench.peers.litserve_app"}[contender.kind]
    port = free_port()
    options = ("--folder", str(folder), "--dtype", contender.dtype, "--port", str(port))
    return running([sys.executable, "-m", module, *options], port, "/health", log=log)
