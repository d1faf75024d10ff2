"""Two replicas behind nginx, under load: a rolling restart loses no request; one is killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.service import RunningService, free_port, running, running_service
from tests.operation.conftest import tool
from tests.operation.support import steady_load

CLIENTS = 8
PAUSE_SECONDS = 3.0  # of load between two events


@dataclass(slots=True)
class Replica:
    port: int
    process: subprocess.Popen[bytes]

    def stop(self, number: signal.Signals) -> int:
        """Returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


Serve = Callable[[int], AbstractContextManager[RunningService]]  # on this port, ready


def one_thread(port: int) -> AbstractContextManager[RunningService]:
    return running_service(port=port, threads=1)


class Cluster:
    """Two replicas behind nginx."""

    def __init__(self, folder: Path, stack: ExitStack, serve: Serve = one_thread) -> None:
        self._stack = stack
        self._serve = serve
        self.replicas = [Replica(port, self._start(port)) for port in (free_port(), free_port())]
        first, second = (replica.port for replica in self.replicas)
        port = free_port()
        text = Path(__file__).with_name("nginx.conf").read_text()
        values = {"FIRST": first, "SECOND": second, "PORT": port, "PID": folder / "pid", "TEMPORARY": folder / "bodies"}
        for name, value in values.items():
            text = text.replace(name, str(value))
        configuration = folder / "nginx.conf"
        configuration.write_text(text)
        command = [tool("nginx"), "-p", str(folder), "-c", str(configuration)]
        self.url = stack.enter_context(running(command, port, "/health/ready")).url

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        """Returns once it is ready."""
        return self._stack.enter_context(self._serve(port)).process

    def restart(self, replica: Replica) -> None:
        """Start a replica again that has ended."""
        replica.process = self._start(replica.port)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(tmp_path, stack)


@pytest.mark.timeout(600)
def test_a_rolling_restart_loses_no_request(cluster: Cluster, figure: Callable[[str], None]) -> None:
    async def roll() -> None:
        async with steady_load(cluster.url, CLIENTS) as load:
            await asyncio.sleep(PAUSE_SECONDS)
            for replica in cluster.replicas:
                assert await asyncio.to_thread(replica.stop, signal.SIGTERM) == 0
                await asyncio.to_thread(cluster.restart, replica)
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
