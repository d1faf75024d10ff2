"""The matrix: samples of each contender in each workload, and figures from them. Pure except for `measure`."""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from bench.client import CacheWatch, Pictures, Span, Turn, keep_busy
from bench.contenders import Server
from bench.workloads import Work

P99_SAMPLES = 100
HANGS_SECONDS = 240.0  # longer than any sample: a cell that takes so much more than its time
Key = tuple[str, str, int]  # workload, contender, clients


@dataclass(slots=True)
class Cell:
    workload: str
    contender: str
    clients: int
    seconds: list[float] = field(default_factory=list)  # of each sample
    rates: list[float] = field(default_factory=list)  # of each round, in answers per second
    failure: str = ""

    @property
    def key(self) -> Key:
        return self.workload, self.contender, self.clients

    def add(self, turn: Turn) -> None:
        self.seconds += turn.seconds
        if turn.seconds:
            self.rates.append(turn.num_answers / turn.elapsed)

    @property
    def rate(self) -> float | None:
        """Answers per second, of all rounds alike; None if the contender failed."""
        return statistics.mean(self.rates) if self.rates and not self.failure else None

    @property
    def p50(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds and not self.failure else None

    @property
    def p99(self) -> float | None:
        """None if there are too few samples."""
        return percentile(self.seconds, 0.99) if len(self.seconds) >= P99_SAMPLES and not self.failure else None


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank: the smallest value such that this share of all is not above it."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


class Matrix:
    """Cells by workload, contender and clients."""

    def __init__(self, cells: Iterable[Cell] = ()) -> None:
        self._cells = {cell.key: cell for cell in cells}

    def __iter__(self) -> Iterator[Cell]:
        return iter(self._cells.values())

    def cell(self, workload: str, contender: str, clients: int) -> Cell:
        """It is made, if it is not there."""
        cell = Cell(workload, contender, clients)
        return self._cells.setdefault(cell.key, cell)

    def rate(self, workload: str, contender: str, clients: int) -> float | None:
        cell = self._cells.get((workload, contender, clients))
        return cell.rate if cell else None

    def p50(self, workload: str, contender: str, clients: int = 1) -> float | None:
        cell = self._cells.get((workload, contender, clients))
        return cell.p50 if cell else None

    def to_a(self, cell: Cell) -> float | None:
        return ratio(cell.rate, self.rate(cell.workload, "a", 1))

    def to_c(self, cell: Cell) -> float | None:
        """At the same number of clients."""
        return ratio(cell.rate, self.rate(cell.workload, "c", cell.clients))

    def best_ours(self, workload: str, clients: int = 16) -> Cell | None:
        ours = [
            cell for cell in self if (cell.workload, cell.clients) == (workload, clients) and cell.contender in "def"
        ]
        return max((cell for cell in ours if cell.rate is not None), key=lambda cell: cell.rate or 0, default=None)


def measure(
    cell: Cell, server: Server, works: Iterable[Work], span: Span, pictures: Pictures, watch: CacheWatch
) -> bool:
    """Add to the cell what its clients get done. Whether the server is left with nothing to do: peers go on with what
    was given up."""
    url, kind = server.service.url, server.contender.kind

    async def take() -> Turn:
        limit = None if span.seconds == math.inf else 2 * span.seconds + HANGS_SECONDS
        async with asyncio.timeout(limit), watch.watching(url) if kind == "ours" else nullcontext():
            return await keep_busy(url, kind, iter(works), cell.clients, pictures, span)

    try:
        turn = asyncio.run(take())
        cell.add(turn)
    except* TimeoutError:
        cell.failure = "it hung: it took far longer than its time"
    except* Exception as group:
        cell.failure = repr(group.exceptions[0])
    return not cell.failure and (kind == "ours" or not turn.num_given_up)
