"""How much time each cell may take, so that all of them together take what they may. Pure but for the clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from bench.client import Span
from bench.contenders import Contender
from bench.workloads import Workload

WARM_SHARE, PATIENCE_SHARE = 0.3, 0.2  # of a peer's time: before it counts, and for what is then under way
MAX_BATCH_SIZE = 8  # of LitServe


class Budget:
    """Divides what is left among the cells that are left, by their weights: what one does not need is the others'."""

    def __init__(self, seconds: float, weights: Sequence[float], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._end = clock, clock() + seconds
        self._left = sum(weights)

    def share(self, weight: float) -> float:
        """Seconds for the next cell; each is asked for once."""
        part = weight / self._left if self._left > 0 else 0.0
        self._left -= weight
        return max(0.0, self._end - self._clock()) * part


def span_of(seconds: float, contender: Contender, clients: int, samples: int, workload: Workload) -> Span:
    """Ours answers all clients' samples at about the same time, and drops what is given up. LitServe answers in
    batches, which are a sample's own `num_requests` where it has many. Samples that differ count in whole cycles. A
    peer's warm-up ends after a share at most."""
    clients = min(clients, samples)  # to see that it runs, a few samples will do
    cycle = min(workload.cycle, samples)
    if contender.kind == "ours":
        burst = cycle if cycle > 1 else clients
        return Span(clients, samples=_whole(samples, burst), seconds=seconds, burst=burst, patience_seconds=0)
    burst = MAX_BATCH_SIZE if clients >= MAX_BATCH_SIZE and workload.num_requests == 1 else cycle
    return Span(
        warm_samples=clients,
        warm_seconds=WARM_SHARE * seconds,
        samples=_whole(samples, burst),
        seconds=(1 - PATIENCE_SHARE) * seconds,
        burst=burst,
        patience_seconds=PATIENCE_SHARE * seconds,
    )


def _whole(samples: int, burst: int) -> int:
    """So many bursts that all samples are in one."""
    return math.ceil(samples / burst) * burst


def works_needed(samples: int, clients: int, cycle: int = 1) -> int:
    """At most: the warm-up, what counts, and what is then under way."""
    return max(_whole(samples, min(size, samples)) for size in (clients, cycle)) + 2 * clients
