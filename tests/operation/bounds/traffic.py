"""What clients ask for, and how it goes: over HTTP, many at a time."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf

import httpx

from tests.operation.bounds.bodies import b64, png

JSON = {"content-type": "application/json"}
TIMEOUT_SECONDS = 100.0
SCRAPE_SECONDS = 0.05
Ask = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]


@dataclass(slots=True)
class Outcomes:
    statuses: Counter[int] = field(default_factory=Counter)  # 0: no answer
    seconds: list[float] = field(default_factory=list)  # of those with 200
    refusal_seconds: list[float] = field(default_factory=list)  # of 429, as the server tells

    def add(self, response: httpx.Response | None, seconds: float) -> None:
        status = response.status_code if response is not None else 0
        self.statuses[status] += 1
        if status == 200:
            self.seconds.append(seconds)
        if response is not None and status == 429:
            self.refusal_seconds.append(_server_seconds(response))

    @property
    def is_all_200(self) -> bool:
        return bool(self.statuses) and set(self.statuses) == {200}

    @property
    def slowest(self) -> float:
        return max(self.seconds, default=inf)

    def __str__(self) -> str:
        return ", ".join(f"{number} x {status or 'none'}" for status, number in sorted(self.statuses.items()))


def _server_seconds(response: httpx.Response) -> float:
    found = re.search(r"total;dur=([\d.]+)", response.headers["server-timing"])
    assert found is not None
    return float(found[1]) / 1000


def quantile(values: list[float], share: float) -> float:
    if len(values) < 2:
        return max(values, default=float("inf"))
    return statistics.quantiles(values, n=100, method="inclusive")[round(100 * share) - 1]


def client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, limits=limits)


async def timed(http: httpx.AsyncClient, ask: Ask, outcomes: Outcomes) -> None:
    began = time.monotonic()
    try:
        response: httpx.Response | None = await ask(http)
    except httpx.HTTPError:
        response = None
    outcomes.add(response, time.monotonic() - began)


# --- requests ---


def pairs(number: int) -> bytes:
    """1,024 of them, with images that nobody else sends."""
    images = [b64(png((16, 16), (number % 256, number // 256 % 256, each))) for each in range(16)]
    return json.dumps({"images": images, "text": [f"red {number} {each}" for each in range(64)]}).encode()


def many_labels(number: int, num_candidates: int = 4096) -> bytes:
    """64 questions; their answers list every candidate."""
    candidates = [f"red {number} {each}" for each in range(num_candidates)]
    questions = [f"is it {each}?" for each in range(64)]
    return json.dumps({"image": b64(png()), "question": questions, "candidates": candidates, "rank_k": 16}).encode()


def many_images(number: int) -> bytes:
    images = [b64(png((64, 64), (number % 256, number // 256 % 256, each))) for each in range(64)]
    return json.dumps({"images": images}).encode()


def post(path: str, body: bytes) -> Ask:
    return lambda http: http.post(path, content=body, headers=JSON)


def question() -> Ask:
    return post("/vqa", json.dumps({"image": b64(png()), "question": "what color is it?"}).encode())


# --- many of them ---


@asynccontextmanager
async def beside(url: str, num_clients: int, ask: Callable[[int], Ask]) -> AsyncIterator[Outcomes]:
    """So many clients, each of which sends its next request when the last was answered, while the block runs. What
    is under way at its end is left."""
    outcomes, numbers = Outcomes(), iter(range(1_000_000))

    async def one() -> None:
        for number in numbers:
            await timed(http, ask(number), outcomes)

    async with client(url) as http:
        tasks = [asyncio.create_task(one()) for _ in range(num_clients)]
        try:
            await asyncio.sleep(1)  # they are under way
            yield outcomes
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def in_turn(url: str, number: int, ask: Callable[[int], Ask]) -> Outcomes:
    """One after the other."""
    outcomes = Outcomes()
    async with client(url) as http:
        for each in range(number):
            await timed(http, ask(each), outcomes)
    return outcomes


async def at_once(url: str, asks: list[Ask]) -> tuple[Outcomes, float]:
    """All of them; and the most items that were in the queue whenever it was looked at."""
    outcomes, over, most = Outcomes(), asyncio.Event(), 0.0

    async def scrape() -> None:
        nonlocal most
        while not over.is_set():
            text = (await http.get("/metrics")).text
            found = re.search(r"^blip_queue_items (\S+)", text, re.MULTILINE)
            most = max(most, float(found[1]) if found else 0.0)
            await asyncio.sleep(SCRAPE_SECONDS)

    async with client(url) as http:
        watcher = asyncio.create_task(scrape())
        await asyncio.gather(*(timed(http, ask, outcomes) for ask in asks))
        over.set()
        await watcher
    return outcomes, most
