"""`make bench`: peers and this service side by side on one machine, in one run. Everything is judged by ratios.

What was measured is written after each part, also if the run is interrupted. Ends with 1 if a part failed."""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import sys
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from bench import answers, machine, overhead, sections
from bench.budget import Budget, span_of
from bench.cells import measure
from bench.checkpoints import write_blip_base
from bench.client import CacheWatch, Pictures
from bench.contenders import CACHE_BYTES, PROFILE, Contender, Stage, contenders
from bench.cpu import about, is_wide
from bench.measure import weight_bytes
from bench.pictures import Numbers, make_pictures
from bench.record import Record
from bench.scale import SCALES, Plan, Scale
from bench.sections import Needs
from bench.workloads import CAPTIONS, GREEDY, WORKLOADS, Work, Workload
from models.device import choose_dtype, dtype_name

PEERS_SHARE = 1.5  # of the time that one of ours has for a cell


def main() -> None:
    options = _options()
    end_on_signals()
    if not (options.folder / "catalog.toml").is_file():
        write_blip_base(options.folder)
    record, chosen = begin(SCALES[options.scale], options.scale != "full", options.only, options.results)
    with tqdm(desc="pictures", unit="step") as bar, Stage(options.folder.resolve()) as stage:
        Run(SCALES[options.scale], chosen, stage, record, bar).all()
    print((options.results / "table.md").read_text())
    print(f"{record.results['minutes']:.0f} minutes; written into {options.results}")
    if record.failures:
        sys.exit(f"failed: {'; '.join(record.failures)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="full", help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=Path("build/blip-base"), help="for 3.3 GB; default: %(default)s")
    parser.add_argument("--results", type=Path, help="default: bench/results, or of less than all build/bench-SCALE")
    parser.add_argument("--only", default="abcdef", help="contenders; default: %(default)s")
    options = parser.parse_args()
    options.results = options.results or Path(
        "bench/results" if options.scale == "full" else f"build/bench-{options.scale}"
    )
    return options


def end_on_signals() -> None:
    """With the servers, as after an error, and with what was measured; the next signal ends at once."""

    def stop(number: int, _: Any) -> None:
        for other in (signal.SIGINT, signal.SIGTERM):
            signal.signal(other, signal.SIG_DFL)
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def begin(scale: Scale, quick: bool, only: str, folder: Path) -> tuple[Record, list[Contender]]:
    half = dtype_name(choose_dtype("auto", torch.device("cpu")))
    chosen, left_out = contenders(half, quick)
    results: dict[str, Any] = {
        "quick": quick,  # in tiny runs too
        "half": half,
        "is_wide": is_wide(),
        "about": about(),
        "skipped": [workload.name for workload in WORKLOADS if workload.name not in scale.workloads],
        "units": {workload.name: workload.unit for workload in WORKLOADS},
        "left_out": left_out,
    }
    return Record(folder, results), [contender for contender in chosen if contender.key in only]


@dataclass(slots=True)
class Run:
    scale: Scale
    chosen: list[Contender]
    stage: Stage
    record: Record
    bar: Any
    numbers: Numbers = field(default_factory=Numbers)
    watch: CacheWatch = field(default_factory=CacheWatch)

    def all(self) -> None:
        """What other libraries could bring down comes last."""
        plan = self.scale.plan(self.numbers)
        self.bar.reset(_ticks(self.scale, self.numbers.taken, self.chosen))
        pictures = make_pictures(self.numbers.taken + self.scale.section_pictures, tick=self.bar.update)
        results = self.record.results
        self.matrix(plan, pictures)
        self.own(pictures)
        results["cache"] = {
            "most_bytes": self.watch.most_bytes,
            "limit_bytes": CACHE_BYTES,
            "scrapes": self.watch.scrapes,
        }
        with self.part("answers"):
            results["answers"] = []
            results["answers"].extend(answers.measure(self.scale.demo_requests, self.bar.update))
        with self.part("overhead"):
            rows, rates = overhead.measure(self.scale.overhead_rounds)
            results["overhead"] = {"rows": rows} | rates
        with self.part("machine"):
            results["machine"] = []
            machine.measure(self.stage.folder, self.scale.machine, results["machine"])
        results["ended"] = True
        self.record.write()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.bar.set_description(name)
        with self.record.part(name):
            yield

    def matrix(self, plan: Plan, pictures: Pictures) -> None:
        stays = _stays(self.scale, self.chosen)
        budget = Budget(self.scale.seconds, [self.weight(one, *cell) for one, cells in stays for cell in cells])
        for contender, cells in stays:
            with self.part(contender.name), self.facts():
                for workload, clients in cells:
                    self.bar.set_description(f"{workload.name} ({contender.key})")
                    seconds = budget.share(self.weight(contender, workload, clients))
                    self.cell(contender, workload, clients, seconds, plan[workload.name][clients], pictures)
                    self.bar.update()

    def weight(self, contender: Contender, workload: Workload, clients: int) -> float:
        """Of a round of a cell, in the time of all: peers need longer for as many samples."""
        share = 1.0 if contender.kind == "ours" else PEERS_SHARE
        return share * workload.weight(clients) / self.scale.rounds(workload, clients)

    def cell(
        self,
        contender: Contender,
        workload: Workload,
        clients: int,
        seconds: float,
        works: list[Work],
        pictures: Pictures,
    ) -> None:
        """A contender that never starts is left out, and told once. A cell that failed is not tried again."""
        left_out = self.record.results["left_out"]
        if contender.key in left_out:
            return
        try:
            server = self.stage.server(contender)
        except RuntimeError as error:
            if contender.key in self.stage.start_seconds:
                raise  # it has started before, and what it did then stands
            left_out[contender.key] = str(error)
            return
        cell = self.record.matrix.cell(workload.name, contender.key, clients)
        if cell.failure:
            return
        span = span_of(seconds, contender, clients, self.scale.samples_of_round(workload, clients), workload)
        if not measure(cell, server, works, span, pictures, self.watch):
            self.stage.clear()
        self.record.write()

    @contextmanager
    def facts(self) -> Iterator[None]:
        """End the server, then note what its processes took."""
        try:
            yield
        finally:
            self.stage.clear()
            started = (one for one in self.chosen if one.key in self.stage.start_seconds)
            self.record.results["contenders"] = [_facts(one, self.stage) for one in started]

    def own(self, pictures: Pictures) -> None:
        """The sections about this service, served in the dtype that is best here."""
        best = self.record.matrix.best_ours(GREEDY)
        if best is None:
            return
        contender = next(one for one in self.chosen if one.key == best.contender)
        self.record.results["best"] = contender.name
        with self.part("sections"), self.facts():
            for name, section in sections.SECTIONS.items():
                with self.part(name):
                    server = self.stage.server(contender)
                    needs = Needs(
                        self.scale.sections,
                        self.scale.growth,
                        server,
                        pictures,
                        self.numbers,
                        self.watch,
                        self.bar.update,
                    )
                    self.record.results[name] = asyncio.run(section(needs))
                if name in self.record.results["failures"]:
                    self.stage.clear()  # it may still be busy


class Stay(NamedTuple):
    """Of a contender's server, in memory alone."""

    contender: Contender
    cells: list[tuple[Workload, int]]  # workload, clients


def _stays(scale: Scale, chosen: list[Contender]) -> list[Stay]:
    """First ours, the best dtype first, and the peer with the most cells last. The second round goes back: what slows a
    machine by and by is then about as much of each one's time."""
    ours = [contender for contender in chosen if contender.kind == "ours"]
    order = [*reversed(ours), *(contender for contender in chosen if contender.kind != "ours")]
    first = [Stay(contender, list(_cells(scale.workloads, contender))) for contender in order]
    again = [
        Stay(contender, [cell for cell in reversed(cells) if scale.rounds(*cell) > 1])
        for contender, cells in reversed(first)
    ]
    return [stay for stay in first + again if stay.cells]


def _cells(names: Container[str], contender: Contender) -> Iterator[tuple[Workload, int]]:
    """Ours in fp32 has many clients in captions alone: elsewhere no goal asks for it, and each cell takes a minute."""
    for workload in (workload for workload in WORKLOADS if workload.name in names):
        for clients in contender.clients:
            is_slow = contender.kind == "ours" and contender.dtype == "fp32" and clients > 1
            if not is_slow or workload.name in CAPTIONS:
                yield workload, clients


def _facts(contender: Contender, stage: Stage) -> dict[str, Any]:
    ours = contender.kind == "ours"
    return {
        "key": contender.key,
        "name": contender.name,
        "start_seconds": statistics.median(stage.start_seconds[contender.key]),
        "weight_bytes": weight_bytes(stage.folder / "catalog.toml", PROFILE, contender.dtype) if ours else None,
        "peak_bytes": stage.peak_bytes.get(contender.key, 0),
    }


def _ticks(scale: Scale, num_pictures: int, chosen: list[Contender]) -> int:
    cells = sum(len(stay.cells) for stay in _stays(scale, chosen))
    own = sections.num_ticks(scale.sections, scale.growth)
    return num_pictures + scale.section_pictures + cells + own + len(answers.DTYPES)


if __name__ == "__main__":
    main()
