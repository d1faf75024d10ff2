"""Looks at a service from another process while something goes on: how long /health/live takes, and its memory.

`python -m tests.operation.bounds.watch URL PID` looks until its stdin ends, and prints what it saw."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

PAUSE_SECONDS = 0.02
FAMILY_SECONDS = 1.0  # between two looks for new children
TIMEOUT_SECONDS = 60.0
COUNTED = ("RssAnon", "RssShmem")  # of a process: what it has mapped from files is not its own


@dataclass(slots=True)
class Seen:
    before_bytes: int
    slowest_seconds: float = 0.0
    peak_bytes: int = 0
    num_looks: int = 0

    @property
    def growth_bytes(self) -> int:
        return self.peak_bytes - self.before_bytes


@contextmanager
def watching(url: str, pid: int) -> Iterator[Seen]:
    """What it saw is there when the block has ended."""
    command = [sys.executable, "-m", "tests.operation.bounds.watch", url, str(pid)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        seen = Seen(memory_bytes(pid))
        try:
            yield seen
        finally:
            told, _ = process.communicate()
            if told:
                seen.slowest_seconds, seen.peak_bytes, seen.num_looks = json.loads(told)


def family(pid: int) -> list[int]:
    """The process and its descendants."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def memory_bytes(pid: int, pids: list[int] | None = None) -> int:
    """Resident, of the process and its descendants; what they share from before a fork is counted in each."""
    return sum(map(_own_bytes, family(pid) if pids is None else pids))


def _own_bytes(pid: int) -> int:
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(COUNTED))
    return 0


def num_descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def read_metrics(url: str) -> dict[str, float]:
    """All samples, by name and labels as they are written."""
    lines = httpx.get(f"{url}/metrics", timeout=TIMEOUT_SECONDS).text.splitlines()
    samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in samples}


def wait_for(condition: Callable[[], bool], seconds: float) -> float | None:
    """Until `condition()` holds; how long it took, or None: it never did."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        if condition():
            return passed
        time.sleep(0.2)
    return None


def _look(url: str, pid: int, over: threading.Event) -> tuple[float, int, int]:
    slowest, peak, number, pids, asked = 0.0, 0, 0, family(pid), time.monotonic()
    address = url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
    _ask(connection)  # to connect is not measured
    print(flush=True)
    while not over.wait(PAUSE_SECONDS):
        began = time.monotonic()
        try:
            _ask(connection)
        except (OSError, http.client.HTTPException):
            connection.close()
        slowest, number = max(slowest, time.monotonic() - began), number + 1
        if time.monotonic() - asked > FAMILY_SECONDS:
            pids, asked = family(pid), time.monotonic()
        peak = max(peak, memory_bytes(pid, pids))
    return slowest, max(peak, memory_bytes(pid)), number


def _ask(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/health/live")
    connection.getresponse().read()


def main() -> None:
    over = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    print(json.dumps(_look(sys.argv[1], int(sys.argv[2]), over)))


if __name__ == "__main__":
    main()
