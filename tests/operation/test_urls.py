"""Images by URL against the real process: every attack, liveness beside bodies without an end, a rolling restart."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from bench.service import RunningService
from tests.app.urls.attacks import ATTACKS, NAMES
from tests.operation.bounds.verdicts import LIVE_MS, MB, Verdicts
from tests.operation.bounds.watch import read_metrics, watching
from tests.operation.test_rollout import Cluster
from tests.operation.urls import Hosts, hosts, serving

pytestmark = pytest.mark.timeout(600)

ROW = "{:<42} {:>4} {:<18} {:>7} {:>5}"
CONNECT_SECONDS = 3.0
FETCHES = 16
LOAD_SECONDS = 10.0
CLIENTS, PAUSE_SECONDS = 16, 3.0


@pytest.fixture(scope="module")
def network() -> Iterator[Hosts]:
    with hosts() as found:
        yield found


@pytest.fixture(scope="module")
def service(network: Hosts) -> Iterator[RunningService]:
    with serving(network) as started:
        yield started


def test_no_attack_reaches_the_secret(network: Hosts, service: RunningService, figure: Callable[[str], None]) -> None:
    """One after the other, so that each has its own hits."""
    figure(ROW.format("attack", "", "answer", "seconds", "hits"))
    wrong, seconds = [], {}
    with httpx.Client(base_url=service.url, timeout=65) as client:
        for attack in ATTACKS:
            before, began = network.secret.num_connections, time.monotonic()
            response = client.post("/caption", json={"image": attack.url})
            seconds[attack.name] = time.monotonic() - began
            hits = network.secret.num_connections - before
            answer = response.status_code, response.json().get("type", "").removeprefix("/errors/")
            figure(ROW.format(attack.name, *answer, f"{seconds[attack.name]:.2f}", hits))
            if hits or answer not in attack.answers:
                wrong.append((attack.name, answer, hits))
    held = [seconds[one.name] for one in NAMES if "label" not in one.name]
    figure(f"names that are refused, and one that has no address: {min(held):.3f} to {max(held):.3f} s")
    assert wrong == []
    assert network.secret.num_connections == 0
    assert min(held) >= CONNECT_SECONDS
    assert read_metrics(service.url)["blip_inflight_bytes"] == 0


@pytest.mark.parametrize("path", ["slowly-endless", "endless", "chunks", "informing", "head"])
def test_fetching_never_holds_the_loop(service: RunningService, table: Verdicts, path: str) -> None:
    async def test() -> Counter[int]:
        async with asking(service.url, FETCHES, path) as statuses:
            await asyncio.sleep(LOAD_SECONDS)
        return statuses

    with watching(service.url, service.process.pid) as seen:
        statuses = asyncio.run(test())
    told = ", ".join(f"{number} x {status}" for status, number in sorted(statuses.items()))
    table.told("url", f"{FETCHES} at a time of /{path}", told)
    table.at_most("url", "  live, slowest", 1000 * seen.slowest_seconds, LIVE_MS, " ms")
    table.told("url", "  memory, growth", f"{seen.growth_bytes / MB:.4g} MB")
    table.settle()


@asynccontextmanager
async def asking(url: str, num_clients: int, path: str) -> AsyncIterator[Counter[int]]:
    """So many clients, each asking again as soon as it is answered; 0: no answer. The last answers are waited for."""
    statuses, stopping = Counter[int](), asyncio.Event()

    async def client() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=65) as http:
            while not stopping.is_set():
                try:
                    response = await http.post("/caption", json={"image": f"http://good.example/{path}"})
                    statuses[response.status_code] += 1
                except httpx.HTTPError:
                    statuses[0] += 1

    tasks = [asyncio.create_task(client()) for _ in range(num_clients)]
    try:
        yield statuses
    finally:
        stopping.set()
        await asyncio.gather(*tasks)


def test_a_rolling_restart_loses_no_request(network: Hosts, tmp_path: Path, figure: Callable[[str], None]) -> None:
    """Each picture takes its host half a second, so that there always are some on their way."""

    async def roll(cluster: Cluster) -> None:
        async with asking(cluster.url, CLIENTS, "later.png") as statuses:
            for replica in cluster.replicas:
                await asyncio.sleep(PAUSE_SECONDS)
                in_flight = read_metrics(f"http://127.0.0.1:{replica.port}")["blip_inflight_requests"]
                assert await asyncio.to_thread(replica.stop, signal.SIGTERM) == 0
                figure(f"  SIGTERM with {in_flight:.0f} in flight: exit 0")
                await asyncio.to_thread(cluster.restart, replica)
            await asyncio.sleep(PAUSE_SECONDS)
        sent, lost = statuses.total(), statuses.total() - statuses[200]
        figure(f"rolling restart of 2 replicas under {CLIENTS} clients with URLs: {sent} requests, {lost} lost")
        assert lost == 0, statuses

    with ExitStack() as stack:
        asyncio.run(roll(Cluster(tmp_path, stack, partial(serving, network, threads=1))))
