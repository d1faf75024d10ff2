"""How much is measured: everything in under an hour, or a quick look in under ten minutes (on two slow cores)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.workloads import WORKLOADS, Work, Workload

TEXT_SAMPLES = 120  # they take milliseconds: enough for a p99


@dataclass(frozen=True, slots=True)
class Scale:
    rounds: int
    alone: int  # samples of one client
    together: int  # of 16 clients
    heavy_together: int  # of 16 clients, where a sample takes a peer many seconds
    mixed: tuple[int, int]  # of the mix, by one client and by 16: multiples of ten, so that its shares are exact
    workloads: tuple[str, ...]
    sections: int  # samples of the sections about this service
    growth: dict[int, int]  # requests by clients
    machine_rounds: int
    compiled: bool
    demo_requests: int

    def counts(self, workload: Workload) -> dict[int, int]:
        """Samples by clients."""
        if workload.mixed:
            return {1: self.mixed[0], 16: self.mixed[1]}
        if workload.name == "embed texts":
            return {1: TEXT_SAMPLES, 16: TEXT_SAMPLES}
        return {1: self.alone, 16: self.heavy_together if workload.heavy else self.together}

    def plan(self, numbers: Iterator[int]) -> dict[str, dict[int, list[Work]]]:
        """By workload and clients: no two cells of a server share a picture."""
        chosen = [workload for workload in WORKLOADS if workload.name in self.workloads]
        return {
            workload.name: {clients: workload.make(count, numbers) for clients, count in self.counts(workload).items()}
            for workload in chosen
        }

    @property
    def section_pictures(self) -> int:
        """How many pictures the sections need: arrival (with its load), known image and growth."""
        return 4 * self.sections + 16 + self.sections + sum(self.growth.values())


NAMES = tuple(workload.name for workload in WORKLOADS)
FULL = Scale(
    rounds=3,
    alone=12,
    together=16,
    heavy_together=16,
    mixed=(20, 20),
    workloads=NAMES,
    sections=12,
    growth={1: 12, 2: 12, 4: 12, 8: 12, 16: 16, 32: 32, 64: 64},
    machine_rounds=4,
    compiled=True,
    demo_requests=96,
)
QUICK = Scale(
    rounds=1,
    alone=2,
    together=16,
    heavy_together=2,
    mixed=(10, 10),
    workloads=("caption, greedy", "vqa, 5 questions", "embed texts"),
    sections=2,
    growth={1: 2, 8: 8, 32: 32},
    machine_rounds=1,
    compiled=False,
    demo_requests=64,
)
# Every contender, workload and section once or twice: to see that all of it runs, not how fast.
TINY = Scale(
    rounds=1,
    alone=1,
    together=2,
    heavy_together=1,
    mixed=(2, 2),
    workloads=NAMES,
    sections=1,
    growth={1: 1, 4: 4},
    machine_rounds=1,
    compiled=False,
    demo_requests=64,
)
