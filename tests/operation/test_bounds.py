"""What any client can cost: a campaign from outside against the demo with its defaults.

The kinds are numbered as in docs/operations.md. `make prove-bounds` runs it and its siblings, on a machine that is
otherwise idle: its figures are times too."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

import httpx
import pytest

from bench.service import RunningService, running_service
from tests.operation.bounds.bodies import BODIES, Body
from tests.operation.bounds.sockets import begin_to_read, connect, is_cut_off, read_on, who_do_not_read
from tests.operation.bounds.traffic import (
    Ask,
    Outcomes,
    at_once,
    beside,
    in_turn,
    many_images,
    many_labels,
    pairs,
    post,
    quantile,
    question,
)
from tests.operation.bounds.verdicts import GROWTH_MB, LIVE_MS, MB, Verdicts
from tests.operation.bounds.watch import memory_bytes, read_metrics, wait_for, watching
from tests.operation.support import steady_load

pytestmark = pytest.mark.timeout(600)

BURST = 200
BURST_LIVE_MS = 500  # 200 requests with 32 pictures each: those that are let in take the event loop 2 to 3 ms each
QUEUE_ITEMS = 512  # BLIP_MAX_QUEUE_ITEMS
SHORT_QUESTIONS = 30
SHORT_SECONDS = 3.0
SLOW_READERS = 8
CUT_OFF_SECONDS = 60


# --- 1: what is counted before it is parsed ---


def test_a_live_probe_of_an_idle_service(demo: RunningService, table: Verdicts) -> None:
    """What of the figures below is the machine's."""
    with watching(demo.url, demo.process.pid) as seen:
        time.sleep(5)
    table.at_most("1", "idle: live, slowest", 1000 * seen.slowest_seconds, LIVE_MS, " ms")
    table.settle()


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.name)
def test_a_body_is_refused_before_it_costs_much(demo: RunningService, table: Verdicts, body: Body) -> None:
    content = body.make()
    with watching(demo.url, demo.process.pid) as seen:
        began = time.monotonic()
        response = httpx.post(demo.url + body.path, content=content, headers={"content-type": body.kind}, timeout=100)
        seconds = time.monotonic() - began
        time.sleep(0.2)
    status, size = response.status_code, len(content) / MB
    case = f"{body.name}, {size:.1f} MB"
    table.true("1", case, f"{status}, {seconds:.2f} s", "200" if body.is_legal else "4xx", _as_told(status, body))
    table.at_most("1", "  live, slowest", 1000 * seen.slowest_seconds, LIVE_MS, " ms")
    table.at_most("1", "  memory, growth", seen.growth_bytes / MB, GROWTH_MB + size, " MB")
    table.settle()


def _as_told(status: int, body: Body) -> bool:
    return status == 200 if body.is_legal else 400 <= status < 500


# --- 2, 7: the queue, and who waits beside whom ---


def test_a_burst_leaves_the_queue_within_its_limit(demo: RunningService, table: Verdicts) -> None:
    asks = [post("/match", pairs(number)) for number in range(BURST)]
    with watching(demo.url, demo.process.pid) as seen:
        outcomes, most = asyncio.run(at_once(demo.url, asks))
    statuses, refused = outcomes.statuses, outcomes.refusal_seconds
    table.at_most("2", f"{BURST} x 1,024 pairs at once: queue_items", most, QUEUE_ITEMS)
    table.true("2", "  answers", outcomes, "200, 429", statuses[200] > 0 and set(statuses) <= {200, 429, 504})
    table.at_most("2", "  504", 100 * statuses[504] / BURST, 2, " %")
    table.at_most("2", "  429, median, as the server tells", 1000 * quantile(refused, 0.5), 1000, " ms")
    table.told("2", "  429, slowest", f"{1000 * max(refused, default=0):.4g} ms")
    table.at_most("2", "  live, slowest", 1000 * seen.slowest_seconds, BURST_LIVE_MS, " ms")
    table.settle()


def test_the_largest_request_is_served_by_a_busy_service(demo: RunningService, table: Verdicts) -> None:
    async def test() -> Outcomes:
        async with steady_load(demo.url, 4):
            await asyncio.sleep(2)
            return await in_turn(demo.url, 1, lambda _: post("/match", pairs(90_000)))

    outcomes = asyncio.run(test())
    table.true("2", "1,024 pairs beside 4 busy clients", outcomes, "200", outcomes.is_all_200)
    table.settle()


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("4 clients of 1,024 pairs", lambda number: post("/match", pairs(1000 + number))),
        ("4 of 64 questions, 4,096 candidates", lambda number: post("/vqa", many_labels(number))),
        ("4 of 64 images", lambda number: post("/caption", many_images(number))),
    ],
)
def test_short_questions_are_served_beside_large_requests(
    demo: RunningService, table: Verdicts, name: str, others: Callable[[int], Ask]
) -> None:
    async def test() -> tuple[Outcomes, Outcomes]:
        async with beside(demo.url, 4, others) as large:
            return await in_turn(demo.url, SHORT_QUESTIONS, lambda _: question()), large

    with watching(demo.url, demo.process.pid) as seen:
        short, large = asyncio.run(test())
    table.true("7", f"short, beside {name}", short, "200", short.is_all_200)
    table.at_most("7", "  p95", quantile(short.seconds, 0.95), SHORT_SECONDS, " s")
    table.told("7", "  the large ones meanwhile", str(large))
    table.at_most("6", "  live, slowest", 1000 * seen.slowest_seconds, LIVE_MS, " ms")
    table.settle()


# --- 4, 5: answers that are read slowly, or not at all ---


def test_who_does_not_read_is_counted_and_cut_off(table: Verdicts) -> None:
    with running_service(profile="demo") as service:
        asyncio.run(in_turn(service.url, 20, lambda _: question()))
        before = memory_bytes(service.process.pid)
        with who_do_not_read(service.url, SLOW_READERS) as connections:
            counted = read_metrics(service.url)["blip_answer_bytes"]
            held = memory_bytes(service.process.pid) - before
            ended = wait_for(
                lambda: read_metrics(service.url)["blip_readers_cut_off_total"] >= SLOW_READERS, CUT_OFF_SECONDS
            )
            cut_off = sum(map(is_cut_off, connections))
        wait_for(lambda: read_metrics(service.url)["blip_answer_bytes"] == 0, 10)
        left = read_metrics(service.url)["blip_answer_bytes"]
        after = memory_bytes(service.process.pid) - before
    table.at_least("4", f"{SLOW_READERS} who do not read: bytes counted", counted / MB, 150, " MB")
    table.told("4", "  memory, growth meanwhile", f"{held / MB:.4g} MB")
    table.at_most("4", "  until the last is cut off", ended or float("inf"), CUT_OFF_SECONDS, " s")
    table.at_least("4", "  cut off", cut_off, SLOW_READERS)
    table.at_most("4", "  bytes counted in the end", left, 0)
    table.at_most("4", "  memory, growth in the end", after / MB, GROWTH_MB, " MB")
    table.settle()


def test_a_drain_waits_for_a_slow_reader(table: Verdicts) -> None:
    with running_service(profile="demo") as service, connect(service.url, 65536) as connection:
        got, size = begin_to_read(connection)
        service.process.send_signal(signal.SIGTERM)
        got += read_on(connection, size - got, 4e6)
        code = service.process.wait(30)
    table.true("5", "SIGTERM, read at 4 MB/s", f"{got / 1e6:.1f} MB, exit {code}", f"{size / 1e6:.1f} MB", got == size)
    table.at_most("5", "  exit code", abs(code), 0)
    table.settle()
