"""Two replicas behind nginx, under load: rolled without a lost request, and one killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.service import free_port
from tests.operation.conftest import tool
from tests.operation.support import answers, server, start_service, steady_load, wait_until

CLIENTS = 8
PAUSE_SECONDS = 3.0  # of load between two events


@dataclass(slots=True)
class Replica:
    port: int
    process: subprocess.Popen[bytes]

    @property
    def is_ready(self) -> bool:
        return answers(f"http://127.0.0.1:{self.port}/health/ready")

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.is_ready, f"the replica on port {self.port} is ready")

    def start(self) -> None:
        self.process = start_service(self.port)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, number: signal.Signals) -> int:
        """Returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@dataclass(slots=True)
class Cluster:
    url: str
    replicas: tuple[Replica, Replica]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    first, second, port = free_port(), free_port(), free_port()
    text = Path(__file__).with_name("nginx.conf").read_text()
    for name, value in (("FIRST", first), ("SECOND", second), ("PORT", port), ("PID", tmp_path / "pid")):
        text = text.replace(name, str(value))
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(text.replace("TEMPORARY", str(tmp_path / "bodies")))
    replicas = (Replica(first, start_service(first)), Replica(second, start_service(second)))
    with ExitStack() as stack:
        for replica in replicas:
            stack.callback(replica.kill)
        for replica in replicas:
            replica.wait_until_ready()
        url = f"http://127.0.0.1:{port}"
        stack.enter_context(server([tool("nginx"), "-p", tmp_path, "-c", configuration], f"{url}/health/ready"))
        yield Cluster(url, replicas)


@pytest.mark.timeout(600)
def test_a_rolling_restart_loses_no_request(cluster: Cluster, figure: Callable[[str], None]) -> None:
    async def roll() -> None:
        async with steady_load(cluster.url, CLIENTS) as load:
            await asyncio.sleep(PAUSE_SECONDS)
            for replica in cluster.replicas:
                assert await asyncio.to_thread(replica.stop, signal.SIGTERM) == 0
                replica.start()
                await asyncio.to_thread(replica.wait_until_ready)
                await asyncio.sleep(PAUSE_SECONDS)
        figure(f"rolling restart of 2 replicas under {CLIENTS} clients: {load.sent} requests, {load.failed} failed")
        assert load.failed == 0, load.outcomes

    asyncio.run(roll())


@pytest.mark.timeout(600)
def test_a_killed_replica_takes_only_what_it_had(cluster: Cluster, figure: Callable[[str], None]) -> None:
    async def kill() -> None:
        async with steady_load(cluster.url, CLIENTS) as load:
            await asyncio.sleep(PAUSE_SECONDS)
            before = load.failed
            assert await asyncio.to_thread(cluster.replicas[0].stop, signal.SIGKILL) == -signal.SIGKILL
            await asyncio.sleep(PAUSE_SECONDS)
        async with steady_load(cluster.url, CLIENTS) as after:
            await asyncio.sleep(PAUSE_SECONDS)
        figure(
            f"kill -9 of one of 2: {load.sent} requests, {load.failed} failed; "
            f"after it {after.sent}, {after.failed} failed"
        )
        assert before == 0
        assert load.failed <= CLIENTS
        assert after.failed == 0

    asyncio.run(kill())
