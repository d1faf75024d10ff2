"""What is measured of this service alone."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from bench.client import CacheWatch, Pictures, ask, connected, take_turn
from bench.contenders import Server
from bench.processes import resident_bytes
from bench.workloads import QUESTIONS, Work

LOAD_CLIENTS, LOAD_TOKENS, ARRIVING_TOKENS = 16, 200, 10
DEFAULT_BEAMS = 3
BEAMS = (1, DEFAULT_BEAMS)
KNOWN_TOKENS = (3, 10)  # of a usual answer, and of the longest by the authors' default
GROWTH_TOKENS = 5
HANGS_SECONDS = 600.0  # a section that takes longer


Section = Callable[["Needs"], Coroutine[Any, Any, Any]]


class Needs(NamedTuple):
    samples: int
    growth: dict[int, int]  # requests by clients
    server: Server
    pictures: Pictures
    numbers: Iterator[int]
    watch: CacheWatch
    tick: Callable[[], object]

    @property
    def url(self) -> str:
        return self.server.service.url


def num_pictures(samples: int, growth: dict[int, int]) -> int:
    return LOAD_CLIENTS + num_ticks(samples, growth)


def num_ticks(samples: int, growth: dict[int, int]) -> int:
    return 2 * len(BEAMS) * samples + len(KNOWN_TOKENS) * samples + sum(growth.values())


async def arrival(needs: Needs) -> dict[str, Any]:
    """Seconds of short answers about new pictures, alone and while sixteen long generations run on the same model."""
    numbers = needs.numbers
    loads = [Work("vqa", next(numbers), QUESTIONS[:1], 1, LOAD_TOKENS) for _ in range(LOAD_CLIENTS)]

    async def short(num_beams: int) -> list[float]:
        works = [Work("vqa", next(numbers), QUESTIONS[:1], num_beams, ARRIVING_TOKENS) for _ in range(needs.samples)]
        return (await take_turn(needs.url, "ours", works, 1, needs.pictures, needs.tick)).seconds

    async with needs.watch.watching(needs.url):
        alone = {str(num_beams): await short(num_beams) for num_beams in BEAMS}
        async with loaded(needs.url, loads, needs.pictures) as finished:
            busy = {str(num_beams): await short(num_beams) for num_beams in BEAMS}
        return {"alone": alone, "loaded": busy, "long_generations": len(finished)}


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


async def known_image(needs: Needs) -> dict[str, Any]:
    """Seconds of a first and of a second question about a picture, by the tokens of both answers."""
    found: dict[str, Any] = {str(tokens): {"first": [], "second": []} for tokens in KNOWN_TOKENS}
    for _ in range(needs.samples):
        for tokens in KNOWN_TOKENS:  # in turn, so that a machine that gets slower does so for both
            picture = next(needs.numbers)
            for question, seconds in zip(QUESTIONS[1:3], found[str(tokens)].values(), strict=True):
                work = Work("vqa", picture, (question,), DEFAULT_BEAMS, tokens)
                seconds += (await take_turn(needs.url, "ours", [work], 1, needs.pictures)).seconds
            await needs.watch.scrape(needs.url)
            needs.tick()
    return found


async def growth(needs: Needs) -> list[dict[str, Any]]:
    """Captions per second and memory, over the number of clients."""
    rows = []
    for clients, count in needs.growth.items():
        works = [Work("caption", next(needs.numbers), num_tokens=GROWTH_TOKENS) for _ in range(count)]
        async with needs.watch.watching(needs.url):
            turn = await take_turn(needs.url, "ours", works, clients, needs.pictures, needs.tick)
        rows.append(
            {
                "clients": clients,
                "requests": count,
                "rate": count / turn.elapsed,
                "p50": statistics.median(turn.seconds),
                "resident_bytes": resident_bytes(needs.server.pid),
            }
        )
    return rows


def limited(section: Section) -> Section:
    """Raises TimeoutError if it hangs."""

    async def run(needs: Needs) -> Any:
        async with asyncio.timeout(HANGS_SECONDS):
            return await section(needs)

    return run


SECTIONS = {
    name: limited(one) for name, one in (("arrival", arrival), ("known_image", known_image), ("growth", growth))
}
