"""What is measured of this service alone."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from bench.client import CacheWatch, Pictures, ask, connected, take_turn
from bench.contenders import Server
from bench.processes import resident_bytes
from bench.workloads import QUESTIONS, Work

Tick = Callable[[], object]
LOAD_CLIENTS, LOAD_TOKENS, ARRIVING_TOKENS = 16, 200, 10
DEFAULT_BEAMS = 3
GROWTH_TOKENS = 5


def arrival(
    server: Server, samples: int, pictures: Pictures, numbers: Iterator[int], watch: CacheWatch, tick: Tick
) -> dict[str, Any]:
    """Seconds of short answers about new pictures, alone and while sixteen long generations run on the same model."""
    beams = (1, DEFAULT_BEAMS)
    loads = [Work("vqa", next(numbers), QUESTIONS[:1], 1, LOAD_TOKENS) for _ in range(LOAD_CLIENTS)]

    async def short(num_beams: int) -> list[float]:
        works = [Work("vqa", next(numbers), QUESTIONS[:1], num_beams, ARRIVING_TOKENS) for _ in range(samples)]
        return (await take_turn(server.service.url, "ours", works, 1, pictures, tick)).seconds

    async def both() -> dict[str, Any]:
        async with watch.watching(server.service.url):
            alone = {str(num_beams): await short(num_beams) for num_beams in beams}
            async with loaded(server.service.url, loads, pictures) as finished:
                busy = {str(num_beams): await short(num_beams) for num_beams in beams}
            return {"alone": alone, "loaded": busy, "long_generations": len(finished)}

    return asyncio.run(both())


@asynccontextmanager
async def loaded(url: str, works: list[Work], pictures: Pictures) -> AsyncIterator[list[float]]:
    """Do each of the works over and over. Yields the seconds of those that finished, once all pictures are cached and
    all works run."""
    finished: list[float] = []

    async def repeat(work: Work) -> None:
        async with connected(url) as client:
            while True:
                started = time.monotonic()
                await ask(client, "ours", work, pictures)
                finished.append(time.monotonic() - started)

    warm = [Work(work.task, work.picture, work.texts, 1, 1) for work in works]
    await take_turn(url, "ours", warm, len(warm), pictures)
    tasks = [asyncio.create_task(repeat(work)) for work in works]
    try:
        await asyncio.sleep(2)  # by then all are generating
        yield finished
    finally:
        failed = [task.exception() for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        if failed:
            raise RuntimeError(f"a long generation failed: {failed[0]!r}")


def known_image(
    server: Server, samples: int, pictures: Pictures, numbers: Iterator[int], watch: CacheWatch, tick: Tick
) -> dict[str, Any]:
    """Seconds of a first and of a second question about a picture, with the answer's tokens of the authors' default."""
    first, second = list[float](), list[float]()
    for _ in range(samples):
        picture = next(numbers)
        for question, seconds in zip(QUESTIONS[1:3], (first, second), strict=True):
            work = Work("vqa", picture, (question,), DEFAULT_BEAMS, ARRIVING_TOKENS)
            turn = asyncio.run(take_turn(server.service.url, "ours", [work], 1, pictures))
            seconds += turn.seconds
        asyncio.run(watch.scrape(server.service.url))
        tick()
    return {"first": first, "second": second}


def growth(
    server: Server,
    counts: dict[int, int],
    pictures: Pictures,
    numbers: Iterator[int],
    watch: CacheWatch,
    tick: Tick,
) -> list[dict[str, Any]]:
    """Captions per second and memory, over the number of clients; `counts`: how many requests."""
    rows = []
    for clients, count in counts.items():
        works = [Work("caption", next(numbers), num_tokens=GROWTH_TOKENS) for _ in range(count)]

        async def level(works: list[Work] = works, clients: int = clients) -> Any:
            async with watch.watching(server.service.url):
                return await take_turn(server.service.url, "ours", works, clients, pictures, tick)

        turn = asyncio.run(level())
        rows.append(
            {
                "clients": clients,
                "requests": count,
                "rate": count / turn.elapsed,
                "p50": statistics.median(turn.seconds),
                "resident_bytes": resident_bytes(server.pid),
            }
        )
    return rows
