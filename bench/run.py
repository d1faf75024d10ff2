"""`make bench`: peers and this service side by side on one machine, in one run. Everything is judged by ratios."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from app.settings import default_threads
from bench import answers, machine, overhead, sections
from bench.budget import Budget, span_of, weight
from bench.cells import Matrix, measure
from bench.checkpoints import write_blip_base
from bench.client import CacheWatch, Pictures
from bench.contenders import CACHE_BYTES, PROFILE, Contender, Server, Stage, contenders
from bench.goals import GREEDY, goals
from bench.measure import weight_bytes
from bench.pictures import Numbers, make_pictures
from bench.plots import plot_growth, plot_throughput
from bench.report import render
from bench.scale import FULL, QUICK, TINY, Plan, Scale
from bench.workloads import WORKLOADS, Workload
from models.device import choose_dtype, dtype_name


def main() -> None:
    options = _options()
    scale = {"full": FULL, "quick": QUICK, "tiny": TINY}[options.scale]
    folder = options.folder
    if not (folder / "catalog.toml").is_file():
        write_blip_base(folder)
    started = time.monotonic()
    results, matrix = run(scale, folder.resolve(), options.only, options.scale != "full")
    results["minutes"] = (time.monotonic() - started) / 60
    write(results, matrix, options.results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=("full", "quick", "tiny"), default="full", help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=Path("build/blip-base"), help="for 3.3 GB; default: %(default)s")
    parser.add_argument("--results", type=Path, default=Path("bench/results"), help="default: %(default)s")
    parser.add_argument("--only", default="abcdef", help="contenders; default: %(default)s")
    return parser.parse_args()


def run(scale: Scale, folder: Path, only: str, quick: bool) -> tuple[dict[str, Any], Matrix]:
    half = dtype_name(choose_dtype("auto", torch.device("cpu")))
    chosen, left_out = contenders(half, quick)
    chosen = [contender for contender in chosen if contender.key in only]
    numbers = Numbers()
    plan = scale.plan(numbers)
    results: dict[str, Any] = {
        "quick": quick,  # in tiny runs too
        "half": half,
        "about": f"{_processor()}, {default_threads()} threads, torch {torch.__version__}",
        "skipped": [workload.name for workload in WORKLOADS if workload.name not in scale.workloads],
        "units": {workload.name: workload.unit for workload in WORKLOADS},
        "left_out": left_out,
    }
    matrix = Matrix()
    with tqdm(total=_ticks(scale, numbers.taken, chosen), desc="pictures", unit="step") as bar:
        pictures = make_pictures(numbers.taken + scale.section_pictures, tick=bar.update)
        run_matrix(scale, plan, chosen, folder, results, matrix, pictures, numbers, bar)
        bar.set_description("machine")
        results["machine"] = [
            asdict(limit) for limit in machine.measure(scale.machine_rounds, scale.compiled, bar.update)
        ]
        bar.set_description("answers")
        results["answers"] = list(answers.measure(scale.demo_requests, bar.update))
        rows, rates = overhead.measure()
        results["overhead"] = {"rows": rows} | rates
    return results, matrix


def run_matrix(
    scale: Scale,
    plan: Plan,
    chosen: list[Contender],
    folder: Path,
    results: dict[str, Any],
    matrix: Matrix,
    pictures: Pictures,
    numbers: Iterator[int],
    bar: Any,
) -> None:
    """In rounds of all contenders, so that a machine that gets slower does so for all; one server at a time."""
    watch = CacheWatch()
    with Stage(folder) as stage:
        todo = list(_cells(scale, plan, chosen))
        budget = Budget(scale.seconds, [weight(clients, workload.light) for _, workload, clients in todo])
        for contender, workload, clients in todo:
            bar.set_description(f"{workload.name} ({contender.key})")
            seconds = budget.share(weight(clients, workload.light))
            span = span_of(seconds, contender, clients, scale.samples(workload, clients), workload.num_requests)
            try:
                server = stage.server(contender)
            except RuntimeError as error:
                results["left_out"][contender.key] = str(error)
                continue
            cell = matrix.cell(workload.name, contender.key, clients)
            if not measure(cell, server, plan[workload.name][clients], span, pictures, watch):
                stage.clear()
            bar.update()
        best = matrix.best_ours(GREEDY)
        if best:
            server = stage.server(next(one for one in chosen if one.key == best.contender))
            results["best"] = server.contender.name
            _own(server, scale, results, pictures, numbers, watch, bar)
        stage.clear()
        results["contenders"] = [_facts(contender, stage, folder) for contender in chosen]
    results["cache"] = {"most_bytes": watch.most_bytes, "limit_bytes": CACHE_BYTES, "scrapes": watch.scrapes}


def _cells(scale: Scale, plan: Plan, chosen: list[Contender]) -> Iterator[tuple[Contender, Workload, int]]:
    for _ in range(scale.rounds):
        for contender in chosen:
            for workload in (workload for workload in WORKLOADS if workload.name in plan):
                for clients in contender.clients:
                    yield contender, workload, clients


def _own(
    server: Server,
    scale: Scale,
    results: dict[str, Any],
    pictures: Pictures,
    numbers: Iterator[int],
    watch: CacheWatch,
    bar: Any,
) -> None:
    """The sections about this service. One that fails does not stop the others."""
    count, tick = scale.sections, bar.update
    parts: dict[str, Callable[[], Any]] = {
        "arrival": lambda: sections.arrival(server, count, pictures, numbers, watch, tick),
        "known_image": lambda: sections.known_image(server, count, pictures, numbers, watch, tick),
        "growth": lambda: sections.growth(server, scale.growth, pictures, numbers, watch, tick),
    }
    for name, part in parts.items():
        bar.set_description(name)
        try:
            results[name] = part()
        except Exception as error:
            results.setdefault("failures", {})[name] = repr(error)


def _facts(contender: Contender, stage: Stage, folder: Path) -> dict[str, Any]:
    starts = stage.start_seconds.get(contender.key)
    return {
        "key": contender.key,
        "name": contender.name,
        "start_seconds": statistics.median(starts) if starts else None,
        "weight_bytes": _weight_bytes(contender, folder),
        "peak_bytes": stage.peak_bytes.get(contender.key, 0),
    }


def _weight_bytes(contender: Contender, folder: Path) -> int | None:
    if contender.kind != "ours":
        return None
    return weight_bytes(folder / "catalog.toml", PROFILE, contender.dtype)


def _ticks(scale: Scale, num_pictures: int, chosen: list[Contender]) -> int:
    cells = scale.rounds * len(scale.workloads) * sum(len(contender.clients) for contender in chosen)
    own = 5 * scale.sections + sum(scale.growth.values())
    return num_pictures + scale.section_pictures + cells + own + machine.TICKS + len(answers.DTYPES)


def _processor() -> str:
    """Its name, and the number of cores."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{name or platform.processor()}, {os.cpu_count()} CPUs"


def write(results: dict[str, Any], matrix: Matrix, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    report = render(results, matrix)
    (folder / "table.md").write_text(report)
    cells = [asdict(cell) for cell in matrix]
    found = [asdict(goal) | {"met": goal.met} for goal in goals(results, matrix)]
    (folder / "results.json").write_text(json.dumps(results | {"cells": cells, "goals": found}, indent=1) + "\n")
    plot_throughput(matrix, {row["key"]: row["name"] for row in results["contenders"]}, folder / "throughput.png")
    if results.get("growth"):
        plot_growth(results["growth"], folder / "growth.png")
    print(report)
    print(f"{results['minutes']:.0f} minutes; written into {folder}")


if __name__ == "__main__":
    main()
