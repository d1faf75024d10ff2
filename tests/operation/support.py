"""Load on a service."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
    ("/localize", {"text": "a blue circle"}),
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
async def steady_load(
    url: str, num_clients: int, headers: dict[str, str] | None = None, *, pause_seconds: float = 0.0
) -> AsyncIterator[Load]:
    """This many clients, each sending its next request when the last is answered, as long as the block runs. Every
    request that was sent is waited for."""
    load, stopping = Load(), asyncio.Event()

    async def client(number: int) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_SECONDS, headers=headers) as http:
            while not stopping.is_set():
                path, data = WORK[number % len(WORK)]
                number += 1
                # Now and then extra bytes make it a new picture: with cached ones alone the towers would be idle.
                picture = EXAMPLE + b"\0" * (number % 97)
                try:
                    response = await http.post(path, files={"image": ("image.png", picture)}, data=data)
                    load.outcomes[str(response.status_code)] += 1
                except httpx.HTTPError as error:
                    load.outcomes[type(error).__name__] += 1
                await asyncio.sleep(pause_seconds)

    tasks = [asyncio.create_task(client(number)) for number in range(num_clients)]
    try:
        yield load
    finally:
        stopping.set()
        await asyncio.gather(*tasks)
