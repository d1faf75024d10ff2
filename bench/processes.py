"""A server's processes: their memory, and suspending them while another server is measured."""

from __future__ import annotations

import signal
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
    return sum(process.memory_info().rss for process in tree(pid))


def peak_bytes(pid: int) -> int:
    """The sum of the peaks of all processes of the tree (Linux)."""
    total = 0
    for process in tree(pid):
        with suppress(OSError):  # it ended
            status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    return total


def signal_tree(pid: int, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        for process in tree(pid):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


@contextmanager
def awake(pid: int) -> Iterator[None]:
    """Resume it in this block, and then suspend it again: its polling must not cost the others anything."""
    signal_tree(pid, signal.SIGCONT)
    try:
        yield
    finally:
        signal_tree(pid, signal.SIGSTOP)


@contextmanager
def suspended(pid: int) -> Iterator[None]:
    """Suspend it in this block, except within `awake`; end it afterwards, with all processes that it started."""
    below = tree(pid)
    signal_tree(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for number in (signal.SIGCONT, signal.SIGTERM):
            for process in below:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        for process in psutil.wait_procs(below[1:], END_SECONDS)[1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
