"""The real service as a subprocess on a free port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

READY_SECONDS = 120.0
EXIT_SECONDS = 30.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running_service() -> Iterator[str]:
    """The address of `blip-serve`, ready; stopped on leaving. Raises RuntimeError if it does not become ready."""
    port = free_port()
    command = [sys.executable, "-m", "app"]  # what the console script blip-serve runs
    environment = {**os.environ, "BLIP_HOST": "127.0.0.1", "BLIP_PORT": str(port), "BLIP_LOG_LEVEL": "warning"}
    service = subprocess.Popen(command, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, service)
        yield url
    finally:
        service.terminate()
        service.wait(EXIT_SECONDS)


def _wait_until_ready(url: str, service: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if service.poll() is not None:
            raise RuntimeError(f"blip-serve ended with status {service.returncode}")
        try:
            if httpx.get(f"{url}/health/ready", timeout=5).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"blip-serve was not ready after {READY_SECONDS:.0f} s")
