"""Pictures that cost a decoder much, beside ordinary ones; and broken ones. See test_bounds.py."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO

import httpx
import psutil
import pytest
from PIL import Image

from app.images import bitmap_bytes
from bench.service import RunningService, running_service
from tests.operation.bounds.pictures import ATTACKS, mutated, ordinary
from tests.operation.bounds.traffic import Outcomes, client, timed
from tests.operation.bounds.verdicts import GROWTH_MB, LIVE_MS, MB, Verdicts
from tests.operation.bounds.watch import family, watching

pytestmark = pytest.mark.timeout(600)

PICTURES = 20
PICTURE_TIMEOUT_SECONDS = 10.0
ATTACKERS = 4
ATTACK_PAUSE_SECONDS = 0.5  # else the figures are those of hundreds of refused requests a second, not of the decoders
MUTATED = 2000
IMAGE = {"content-type": "image/jpeg"}


# --- 3, 9: pictures that cost a decoder much ---


@pytest.mark.parametrize("stopped", [0, 1], ids=["", "one decoder stopped"])
def test_ordinary_pictures_are_served_beside_attacks(table: Verdicts, stopped: int) -> None:
    with running_service(profile="demo") as service:
        usual = _ordinary_pictures(service.url, 0)
        with _stopped(service.process.pid, stopped):
            for number, (name, make) in enumerate(ATTACKS.items()):
                case = name + (", a decoder stopped" if stopped else "")
                _attack(service, table, case, make(), 1 + 2 * number, usual.slowest)
    table.told("3", "ordinary pictures, alone: median, slowest", _in_ms(usual.seconds))
    table.settle()


def _attack(service: RunningService, table: Verdicts, case: str, data: bytes, round_: int, usual: float) -> None:
    """What others are used to beside bodies as large, which are no pictures, is not the decoders' doing."""
    with _attacking(service.url, bytes(len(data))):
        usual = max(usual, _ordinary_pictures(service.url, round_).slowest)
    with watching(service.url, service.process.pid) as seen, _attacking(service.url, data) as answers:
        served = _ordinary_pictures(service.url, 1 + round_)
    table.true("3", f"{case}: {PICTURES} others", served, "200", served.is_all_200)
    table.at_most("3", "  slowest of them", served.slowest, 3 * usual, " s")
    table.told("3", "  the attack's answers", ", ".join(f"{n} x {status}" for status, n in sorted(answers.items())))
    table.at_most("3", "  live, slowest", 1000 * seen.slowest_seconds, LIVE_MS, " ms")
    counted = (ATTACKERS * len(data) + _pixel_bytes(data)) / MB
    table.at_most("3", "  memory, growth", seen.growth_bytes / MB, GROWTH_MB + counted, " MB")


def _pixel_bytes(data: bytes) -> int:
    """What its header tells, of the one that is decoded: dear pictures leave a decoder to the others."""
    try:
        with Image.open(BytesIO(data)) as image:
            return bitmap_bytes(image)
    except (OSError, ValueError):
        return 0


def _in_ms(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.0f}, {1000 * max(seconds):.0f} ms" if seconds else "none"


def _ordinary_pictures(url: str, round_: int) -> Outcomes:
    """One after the other; three that do not come are enough."""
    outcomes = Outcomes()
    with httpx.Client(base_url=url, timeout=PICTURE_TIMEOUT_SECONDS) as http:
        for number in range(PICTURES):
            picture = ordinary(size=(1024, 768), seed=1000 * round_ + number)
            began, response = time.monotonic(), None
            try:
                response = http.post("/embed", content=picture, headers=IMAGE)
            except httpx.HTTPError:
                if outcomes.statuses[0] == 2:
                    outcomes.add(None, 0)
                    break
            outcomes.add(response, time.monotonic() - began)
    return outcomes


@contextmanager
def _attacking(url: str, data: bytes) -> Iterator[Counter[str]]:
    """Clients that send this picture again and again, each time with another digest."""
    answers, over = Counter[str](), threading.Event()

    def attack(number: int) -> None:
        with httpx.Client(base_url=url, timeout=2 * PICTURE_TIMEOUT_SECONDS) as http:
            for each in range(1000):
                if over.is_set():
                    return
                content = data + f"{number} {each}".encode()
                headers = IMAGE | {"x-request-timeout": str(PICTURE_TIMEOUT_SECONDS)}
                try:
                    answers[str(http.post("/embed", content=content, headers=headers).status_code)] += 1
                except httpx.HTTPError as error:
                    answers[type(error).__name__] += 1
                over.wait(ATTACK_PAUSE_SECONDS)

    threads = [threading.Thread(target=attack, args=(number,)) for number in range(ATTACKERS)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextmanager
def _stopped(pid: int, number: int) -> Iterator[None]:
    """So many of its decoders, which are the youngest of its children."""
    decoders = [psutil.Process(child) for child in family(pid)[1:]][-number:] if number else []
    for decoder in decoders:
        decoder.suspend()
    try:
        yield
    finally:
        for decoder in decoders:
            if decoder.is_running():
                decoder.resume()


async def _embed(picture: bytes, http: httpx.AsyncClient) -> httpx.Response:
    return await http.post("/embed", content=picture, headers=IMAGE)


def test_mutated_pictures_are_answered(demo: RunningService, table: Verdicts) -> None:
    async def test() -> Outcomes:
        outcomes, pictures = Outcomes(), mutated(MUTATED)

        async def one(http: httpx.AsyncClient) -> None:
            for picture in pictures:
                await timed(http, partial(_embed, picture), outcomes)

        async with client(demo.url) as http:
            await asyncio.gather(*(one(http) for _ in range(8)))
        return outcomes

    with watching(demo.url, demo.process.pid) as seen:
        outcomes = asyncio.run(test())
    fine = set(outcomes.statuses) <= {200, 415, 422}
    table.true("3", f"{MUTATED} mutated pictures of 7 formats", outcomes, "200, 415, 422", fine)
    table.at_most("3", "  slowest of the good", max(outcomes.seconds), 5, " s")
    table.at_most("3", "  live, slowest", 1000 * seen.slowest_seconds, LIVE_MS, " ms")
    table.at_most("3", "  memory, growth", seen.growth_bytes / MB, GROWTH_MB, " MB")
    table.settle()
