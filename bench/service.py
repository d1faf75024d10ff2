"""The real service as a subprocess on a free port, for what measures or asks it from outside."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

READY_SECONDS = 600.0  # many gigabytes may be read from a slow disk
EXIT_SECONDS = 30.0


class RunningService(NamedTuple):
    url: str
    process: subprocess.Popen[bytes]

    def peak_bytes(self) -> int:
        """The largest resident memory that it had (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (line,) = [line for line in status if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024


@contextmanager
def running_service(**settings: object) -> Iterator[RunningService]:
    """`blip-serve` with these settings (`profile="demo"` is BLIP_PROFILE=demo), ready; stopped on leaving.

    Raises RuntimeError if it does not become ready."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    own = {"host": "127.0.0.1", "port": port, "log_level": "warning"} | settings
    environment = os.environ | {f"BLIP_{name.upper()}": str(value) for name, value in own.items()}
    process = subprocess.Popen([sys.executable, "-m", "app"], env=environment)
    service = RunningService(f"http://127.0.0.1:{port}", process)
    try:
        _wait_until_ready(service)
        yield service
    finally:
        process.terminate()
        process.wait(EXIT_SECONDS)


def _wait_until_ready(service: RunningService) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if (status := service.process.poll()) is not None:
            raise RuntimeError(f"blip-serve ended with status {status}")
        try:
            if httpx.get(f"{service.url}/health/ready", timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"blip-serve was not ready after {READY_SECONDS:.0f} s")
