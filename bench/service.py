"""Servers as subprocesses on free ports, to measure or evaluate them from outside."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import httpx

READY_SECONDS = 600.0  # many gigabytes may be read from a slow disk
EXIT_SECONDS = 30.0


class RunningService(NamedTuple):
    url: str
    process: subprocess.Popen[bytes]

    def peak_bytes(self) -> int:
        """Its peak resident memory (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (line,) = [line for line in status if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024


@contextmanager
def running_service(log: IO[bytes] | None = None, **settings: object) -> Iterator[RunningService]:
    """`blip-serve` with these settings (`profile="demo"` is BLIP_PROFILE=demo), ready; stopped on leaving. On a free
    port, if they do not name one.

    Raises RuntimeError if it does not become ready."""
    own = {"host": "127.0.0.1", "port": free_port(), "log_level": "warning"} | settings
    environment = {f"BLIP_{name.upper()}": str(value) for name, value in own.items()}
    with running([sys.executable, "-m", "app"], int(str(own["port"])), "/health/ready", environment, log) as service:
        yield service


@contextmanager
def running(
    command: Sequence[str],
    port: int,
    ready: str,
    environment: Mapping[str, str] | None = None,
    log: IO[bytes] | None = None,
) -> Iterator[RunningService]:
    """Run this command; it is ready when the path `ready` says so. Raises RuntimeError if that never happens."""
    process = subprocess.Popen(command, env=os.environ | (environment or {}), stdout=log, stderr=log)
    service = RunningService(f"http://127.0.0.1:{port}", process)
    try:
        wait_until_ready(service, ready)
        yield service
    finally:
        process.terminate()
        try:
            process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def wait_until_ready(service: RunningService, path: str) -> None:
    """Raises RuntimeError if it ends, or does not answer at `path`."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if (status := service.process.poll()) is not None:
            raise RuntimeError(f"the server ended with status {status}")
        try:
            if httpx.get(f"{service.url}{path}", timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"the server was not ready after {READY_SECONDS:.0f} s")
