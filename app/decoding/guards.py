"""What a decoder's process may do: a codec may be made to do anything, but not for long, nor with much memory."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from PIL import _imaging

PR_SET_PDEATHSIG = 1
DEAR_NICENESS = 5  # a third of the share of a thread that has none
T = TypeVar("T")


def guard_process(parent: int) -> None:
    """End with the service, however that ends; not by the signals that a terminal or a supervisor sends to all."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit()
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.excepthook = _tell_in_one_line
    warnings.simplefilter("ignore")  # of a client's picture, they tell the operator nothing


def _tell_in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    where = traceback.extract_tb(trace)[-1]
    sys.stderr.write(f"{kind.__name__} in {where.name}, line {where.lineno}: {error}\n")


def limit_memory(num_bytes: int) -> None:
    """So many more than the process has now."""
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_bytes().split()[0])
        limit = pages * resource.getpagesize() + num_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def limit_cpu(seconds: float) -> None:
    """The kernel ends the process with SIGPROF when it has used so much of a CPU from now on; 0: never. (RLIMIT_CPU
    knows whole seconds only.)"""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def lift_limits() -> None:
    limit_cpu(0)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def give_memory_back() -> None:
    """What Pillow and malloc keep for the next picture."""
    _imaging.clear_cache(0)
    if sys.platform == "linux":
        with suppress(AttributeError):  # glibc's
            ctypes.CDLL(None).malloc_trim(0)


def lowered(function: Callable[[], T]) -> T:
    """Run it at a lower priority: in a thread of its own, as a thread cannot raise its priority again."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            if sys.platform == "linux":  # elsewhere it would be the process's
                os.setpriority(os.PRIO_PROCESS, 0, DEAR_NICENESS)
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
