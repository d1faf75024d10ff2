"""A minute of clients that leave, and minutes of ordinary load. See test_bounds.py."""

from __future__ import annotations

import asyncio
import statistics
import time

import pytest

from bench.service import RunningService, running_service
from tests.operation.bounds.sockets import restless
from tests.operation.bounds.verdicts import MB, Verdicts
from tests.operation.bounds.watch import memory_bytes, num_descriptors, read_metrics, wait_for, watching
from tests.operation.support import Load, steady_load

pytestmark = pytest.mark.timeout(600)

CLIENTS, RESTLESS_SECONDS = 300, 60.0
SOAK_SECONDS, WARM_SECONDS = 300.0, 60.0
SLOPE_MB = 5.0  # a minute
HELD = ("inflight_requests", "inflight_bytes", "answer_bytes", "queue_items", "reserved_items", "admitted_seconds")


def test_clients_that_leave_leave_nothing(demo: RunningService, table: Verdicts) -> None:
    pid = demo.process.pid
    before = num_descriptors(pid)
    with watching(demo.url, pid) as seen:
        done = asyncio.run(restless(demo.url, CLIENTS, RESTLESS_SECONDS))
    wait_for(lambda: not _held(demo.url), 90)
    held = _held(demo.url)
    wait_for(lambda: num_descriptors(pid) <= before + 2, 10)
    after = num_descriptors(pid)
    table.told("5", f"{CLIENTS} clients that leave, for a minute", f"{done.total()} requests")
    table.true("5", "  gauges in the end", held or "all 0", "all 0", not held)
    table.at_most("5", "  descriptors, more than before", after - before, 2)
    table.told("5", "  live, slowest", f"{1000 * seen.slowest_seconds:.4g} ms")
    table.settle()


def _held(url: str) -> dict[str, float]:
    """What of the gauges is not 0. A request for them is not counted."""
    metrics = read_metrics(url)
    return {name: value for name in HELD if (value := metrics[f"blip_{name}"])}


def test_memory_is_level_under_a_mixed_load(table: Verdicts) -> None:
    async def test(url: str, pid: int, samples: list[tuple[float, float]]) -> Load:
        began = time.monotonic()
        async with steady_load(url, 2, pause_seconds=0.2) as load:
            while (passed := time.monotonic() - began) < SOAK_SECONDS:
                samples.append((passed, memory_bytes(pid) / MB))
                await asyncio.sleep(2)
        return load

    samples: list[tuple[float, float]] = []
    with running_service(profile="demo") as service:
        load = asyncio.run(test(service.url, service.process.pid, samples))
    warm = [(passed / 60, memory) for passed, memory in samples if passed >= WARM_SECONDS]
    slope = statistics.linear_regression([minute for minute, _ in warm], [memory for _, memory in warm]).slope
    table.true(
        "soak",
        f"{SOAK_SECONDS / 60:.0f} minutes of a mix",
        f"{load.sent}, {load.failed} failed",
        "0 failed",
        not load.failed,
    )
    table.at_most("soak", f"  memory ({warm[0][1]:.0f} to {warm[-1][1]:.0f} MB), a minute", slope, SLOPE_MB, " MB")
    table.settle()
