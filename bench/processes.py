"""A server's processes: their memory, and their end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

END_SECONDS = 10.0


def tree(pid: int) -> list[psutil.Process]:
    """The process and all below it."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def resident_bytes(pid: int) -> int:
    """Of the whole tree now. Memory that processes share counts in each."""
    total = 0
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess):  # it ended
            total += process.memory_info().rss
    return total


def peak_bytes(pid: int) -> int:
    """The sum of the peaks of all processes of the tree (Linux)."""
    total = 0
    for process in tree(pid):
        with suppress(OSError):  # it ended
            status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    return total


@contextmanager
def ended(pid: int) -> Iterator[None]:
    """End it after this block, with all processes that it started."""
    try:
        yield
    finally:
        below = tree(pid) if psutil.pid_exists(pid) else []
        for process in below:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(below[1:], END_SECONDS)[1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
