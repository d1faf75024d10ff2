"""How much is measured: everything in under an hour, or a quick look in under ten minutes (on two slow cores)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from bench.budget import works_needed
from bench.machine import BATCHES, Effort
from bench.sections import num_pictures
from bench.workloads import CAPTIONS, WORKLOADS, Work, Workload

TEXT_SAMPLES = 120  # they take milliseconds: enough for a p99
Plan = dict[str, dict[int, list[Work]]]  # by workload and clients


@dataclass(frozen=True, slots=True)
class Scale:
    seconds: float  # that all cells may take, starts included: a slow machine gets fewer samples
    alone: int  # samples of one client, at most
    together: int  # of 16 clients, at most
    twice: bool  # see `rounds`
    workloads: tuple[str, ...]
    sections: int  # samples of the sections about this service
    growth: dict[int, int]  # requests by clients
    machine: Effort
    demo_requests: int
    overhead_rounds: int

    def samples(self, workload: Workload, clients: int) -> int:
        return TEXT_SAMPLES if workload.light else self.alone if clients == 1 else self.together

    def rounds(self, workload: Workload, clients: int) -> int:
        """In how many rounds a cell's samples are taken. Two of one client's and of captions, whose goals are the
        closest: a machine that others use differs by a third from itself within half an hour."""
        return 2 if self.twice and (clients == 1 or workload.name in CAPTIONS) else 1

    def samples_of_round(self, workload: Workload, clients: int) -> int:
        samples = self.samples(workload, clients)
        return max(math.ceil(samples / self.rounds(workload, clients)), min(samples, workload.cycle))

    def plan(self, numbers: Iterator[int]) -> Plan:
        """No two cells share a picture. The rounds of one do: each has a server of its own."""

        def works(workload: Workload, clients: int) -> list[Work]:
            samples = self.samples_of_round(workload, clients)
            return workload.make(works_needed(samples, clients, workload.cycle), numbers)

        return {
            workload.name: {clients: works(workload, clients) for clients in (1, 16)}
            for workload in WORKLOADS
            if workload.name in self.workloads
        }

    @property
    def section_pictures(self) -> int:
        return num_pictures(self.sections, self.growth)


NAMES = tuple(workload.name for workload in WORKLOADS)
FULL = Scale(
    seconds=34 * 60,
    alone=12,
    together=60,
    twice=True,
    workloads=NAMES,
    sections=12,
    growth={1: 12, 2: 12, 4: 12, 8: 12, 16: 16, 32: 32, 64: 64},
    machine=Effort(BATCHES, rounds=3, seconds=7 * 60, compiled=True),
    demo_requests=96,
    overhead_rounds=12,
)
QUICK = Scale(
    seconds=220,
    alone=2,
    together=60,
    twice=False,
    workloads=("caption, greedy", "embed texts"),
    sections=2,
    growth={1: 2, 8: 8, 32: 32},
    machine=Effort((1, 4), rounds=1, seconds=60, compiled=False),
    demo_requests=32,
    overhead_rounds=6,
)
# Every contender, workload and section once or twice: to see that all of it runs, not how fast.
TINY = Scale(
    seconds=5 * 60,
    alone=1,
    together=2,
    twice=True,
    workloads=NAMES,
    sections=1,
    growth={1: 1, 4: 4},
    machine=Effort((1, 4), rounds=1, seconds=0, compiled=False),
    demo_requests=32,
    overhead_rounds=1,
)
SCALES = {"full": FULL, "quick": QUICK, "tiny": TINY}
