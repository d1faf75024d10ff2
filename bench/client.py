"""The clients: asynchronous, over HTTP on loopback, each with one sample at a time."""

from __future__ import annotations

import asyncio
import base64
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx

from bench.workloads import Work

TIMEOUT_SECONDS = 1800
SCRAPE_SECONDS, SCRAPE_TIMEOUT_SECONDS = 0.5, 30.0
Pictures = Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Turn:
    seconds: list[float]  # of each sample
    elapsed: float
    num_answers: int
    num_given_up: int = 0  # samples, which the server may go on with


@dataclass(frozen=True, slots=True)
class Span:
    """What counts of clients that are kept busy: so many samples after a warm-up, which has so many samples or seconds.

    After `seconds` in all they end, as soon as a `burst` counts: so many samples, which end together. What is then
    under way may end within `patience_seconds`, else it is given up."""

    warm_samples: float = math.inf
    warm_seconds: float = math.inf
    samples: int | None = None
    seconds: float = math.inf
    burst: int = 1
    patience_seconds: float = math.inf

    def warm(self, moments: Iterable[float]) -> int:
        """How many samples, done at these moments, belong to the warm-up: one at least."""
        early = sum(moment < self.warm_seconds for moment in moments)
        return int(max(1, min(early, self.warm_samples)))


class Done(NamedTuple):
    """A sample of clients that are kept busy."""

    moment: float  # at which it was done, in seconds since they began
    seconds: float
    num_answers: int


def steady(done: Sequence[Done], span: Span, num_given_up: int = 0) -> Turn:
    """What counts: from the end of the warm-up's last sample on, in whole bursts if there is one. A burst that was cut
    would count more samples than its time has, or fewer."""
    ordered = sorted(done)
    warm = span.warm(one.moment for one in ordered)
    counted = [one for number, one in enumerate(ordered[warm:]) if one.moment <= span.seconds or number < span.burst]
    counted = counted[: span.samples]
    if len(counted) > span.burst > 1:
        counted = counted[: len(counted) // span.burst * span.burst]
    elapsed = counted[-1].moment - ordered[warm - 1].moment if counted else 0.0
    return Turn([one.seconds for one in counted], elapsed, sum(one.num_answers for one in counted), num_given_up)


def ours(work: Work, pictures: Pictures) -> list[dict[str, Any]]:
    """One request, whatever is asked about the picture."""
    data: dict[str, Any] = {}
    if work.task in ("caption", "vqa"):
        data |= {"num_beams": work.num_beams, "min_new_tokens": work.num_tokens, "max_new_tokens": work.num_tokens}
    if work.task == "match":
        data["head"] = "itm"  # as the peers do
    if work.texts:
        data["question" if work.task == "vqa" else "text"] = list(work.texts)
    task = work.task.partition("-")[0]
    if work.picture is None:
        return [{"url": f"/{task}", "json": data}]
    return [{"url": f"/{task}", "data": data, "files": {"image": ("image.jpg", pictures[work.picture], "image/jpeg")}}]


def wrapper(work: Work, pictures: Pictures) -> list[dict[str, Any]]:
    """A request for each text."""
    return [{"url": f"/{work.task}", "json": body} for body in _bodies(work, pictures)]


def litserve(work: Work, pictures: Pictures) -> list[dict[str, Any]]:
    """A request for each text."""
    return [{"url": "/predict", "json": body | {"task": work.task}} for body in _bodies(work, pictures)]


def _bodies(work: Work, pictures: Pictures) -> list[dict[str, Any]]:
    """A peer's, one for each text."""
    body: dict[str, Any] = {"num_beams": work.num_beams, "num_tokens": work.num_tokens}
    if work.picture is not None:
        body["image"] = base64.b64encode(pictures[work.picture]).decode()
    return [body | {"text": text} for text in work.texts or ("",)]


DIALECTS: dict[str, Callable[[Work, Pictures], list[dict[str, Any]]]] = {
    "ours": ours,
    "wrapper": wrapper,
    "litserve": litserve,
}


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False) as client:
        yield client


async def ask(client: httpx.AsyncClient, kind: str, work: Work, pictures: Pictures) -> list[Any]:
    """The answers' bodies. LitServe batches, so it gets a sample's requests at once; the wrapper does not, so it
    gets them one after another. Raises httpx.HTTPError."""
    requests = DIALECTS[kind](work, pictures)
    if kind == "litserve":
        responses = await asyncio.gather(*(client.post(**request) for request in requests))
    else:
        responses = [await client.post(**request) for request in requests]
    return [response.raise_for_status().json() for response in responses]


async def take_turn(
    url: str,
    kind: str,
    works: Sequence[Work],
    clients: int,
    pictures: Pictures,
    tick: Callable[[], object] = bool,
) -> Turn:
    """Do all of the works, with this many clients. `tick` is called after each sample."""
    waiting, seconds = iter(works), [0.0 for _ in works]

    async def work_on(client: httpx.AsyncClient, numbered: Iterator[tuple[int, Work]]) -> None:
        for place, work in numbered:
            started = time.monotonic()
            await ask(client, kind, work, pictures)
            seconds[place] = time.monotonic() - started
            tick()

    async with connected(url) as client:
        numbered = enumerate(waiting)
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(work_on(client, numbered))
        elapsed = time.monotonic() - started
    return Turn(seconds, elapsed, sum(work.num_answers for work in works))


async def keep_busy(
    url: str,
    kind: str,
    works: Iterator[Work],
    clients: int,
    pictures: Pictures,
    span: Span,
    tick: Callable[[], object] = bool,
) -> Turn:
    """A steady state: each client has a sample under way as long as any counts. `works` that end, end it."""
    done: list[Done] = []
    began = time.monotonic()

    def over() -> bool:
        counted = len(done) - span.warm(one.moment for one in done)
        late = time.monotonic() - began >= span.seconds
        return (span.samples is not None and counted >= span.samples) or (late and counted >= span.burst)

    async def work_on(client: httpx.AsyncClient) -> None:
        while not over() and (work := next(works, None)) is not None:
            started = time.monotonic()
            await ask(client, kind, work, pictures)
            now = time.monotonic()
            done.append(Done(now - began, now - started, work.num_answers))
            tick()

    async with connected(url) as client, asyncio.TaskGroup() as group:
        tasks = [group.create_task(work_on(client)) for _ in range(clients)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)  # it found that it was over
        patience = None if span.patience_seconds == math.inf else span.patience_seconds
        _, late = await asyncio.wait(tasks, timeout=patience)
        for task in late:
            task.cancel()
    return steady(done, span, len(late))


class CacheWatch:
    """The largest `blip_feature_cache_bytes` seen; polled twice a second."""

    def __init__(self) -> None:
        self.most_bytes = 0
        self.scrapes = 0

    async def scrape(self, url: str) -> None:
        async with asyncio.timeout(SCRAPE_TIMEOUT_SECONDS), connected(url) as client:
            found = re.search(r"^blip_feature_cache_bytes (\S+)$", (await client.get("/metrics")).text, re.MULTILINE)
        self.most_bytes = max(self.most_bytes, int(float(found[1])) if found else 0)
        self.scrapes += 1

    @asynccontextmanager
    async def watching(self, url: str) -> AsyncIterator[None]:
        async def watch() -> None:
            while True:
                await self.scrape(url)
                await asyncio.sleep(SCRAPE_SECONDS)

        task = asyncio.create_task(watch())
        try:
            yield
        finally:
            task.cancel()
            await self.scrape(url)
