"""Load, and servers beside the service."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

EXAMPLE = Path("models/checkpoints/demo/example.png").read_bytes()
TEXTS = {"text": ["a blue circle", "a red triangle"]}
WORK: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/caption", {}),
    ("/vqa", {"question": ["what color is the circle?", "how many shapes are there?"]}),
    ("/match", TEXTS),
    ("/embed", TEXTS),
)
DEADLINE_SECONDS = 60.0


@dataclass(slots=True)
class Load:
    """What was sent, and what came of it: statuses, or the names of what went wrong instead."""

    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def sent(self) -> int:
        return self.outcomes.total()

    @property
    def failed(self) -> int:
        return self.sent - self.outcomes["200"]


@asynccontextmanager
async def steady_load(url: str, num_clients: int, headers: dict[str, str] | None = None) -> AsyncIterator[Load]:
    """So many clients, each sending its next request when the last is answered, as long as the block runs. Every
    request that was sent is waited for."""
    load, stopping = Load(), asyncio.Event()

    async def client(number: int) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_SECONDS, headers=headers) as http:
            while not stopping.is_set():
                path, data = WORK[number % len(WORK)]
                number += 1
                # A few bytes more make it another picture, now and then: known ones alone would leave the towers idle.
                picture = EXAMPLE + b"\0" * (number % 97)
                try:
                    response = await http.post(path, files={"image": ("image.png", picture)}, data=data)
                    load.outcomes[str(response.status_code)] += 1
                except httpx.HTTPError as error:
                    load.outcomes[type(error).__name__] += 1

    tasks = [asyncio.create_task(client(number)) for number in range(num_clients)]
    try:
        yield load
    finally:
        stopping.set()
        await asyncio.gather(*tasks)


@contextmanager
def server(command: Sequence[str | Path], url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that answers at `url`; ended on leaving."""
    process = subprocess.Popen([str(part) for part in command])
    try:
        wait_until(lambda: answers(url), f"{command[0]} answers at {url}")
        yield process
    finally:
        process.terminate()
        process.wait(10)


def start_service(port: int, **settings: object) -> subprocess.Popen[bytes]:
    """`blip-serve` on this port, not yet ready."""
    own = {"host": "127.0.0.1", "port": port, "log_level": "warning", "threads": 1} | settings
    environment = {f"BLIP_{name.upper()}": str(value) for name, value in own.items()}
    return subprocess.Popen([sys.executable, "-m", "app"], env=os.environ | environment)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False
