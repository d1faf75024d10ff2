"""`make prove-gpu`: on a machine with CUDA, whether what is served there is right, and how fast it is; elsewhere a dry
run, at tiny sizes on the CPU, to see that each section runs.

Each section is a process of its own with a time limit; the report is written anew after each."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from bench.gpu.report import render
from bench.gpu.section import rows_file
from bench.gpu.setup import SCALES, Row

BUDGET_SECONDS = 450.0  # of all sections: the whole is to fit into eight minutes
DRY_PATIENCE = 5  # times as long for all: a dry run is to end on any machine, however busy it is
LEAST_SECONDS = 5.0  # with less than this left, a section is not begun
END_SECONDS = 5.0  # between SIGTERM and SIGKILL
LOG_LINES = 15
# What is right or wrong may run side by side; what is timed runs alone. The most wanted first.
GROUPS: tuple[dict[str, float], ...] = (
    {"machine": 60},
    {"weights": 150, "tests": 150, "golden fp32": 150, "golden bf16": 150, "golden fp16": 150, "demo": 150},
    {"BLIP over HTTP": 120},
    {"BLIP-2 over HTTP": 170},
    {"speed": 100},
    {"compiled": 120},
)


@dataclass(slots=True)
class Found:
    """What came of a section."""

    name: str
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    failure: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, help="default: full with CUDA, else dry")
    parser.add_argument("--folder", type=Path, default=Path("build/gpu"), help="for 14 GB; default: %(default)s")
    parser.add_argument("--results", type=Path, help="default: bench/results, of a dry run the folder")
    parser.add_argument("--only", nargs="+", metavar="SECTION", help="default: all")
    options = parser.parse_args()
    scale = options.scale or ("full" if torch.cuda.is_available() else "dry")
    folder: Path = options.folder.resolve()
    results = options.results or (folder if scale == "dry" else Path("bench/results"))
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    every = prove(scale, folder, results, options.only)
    print((results / "gpu.md").read_text())
    print(f"Written to {results / 'gpu.md'} and gpu.json; logs in {folder / 'logs'}")
    return int(any(is_broken(found) for found in every))


RUNNING: set[subprocess.Popen[bytes]] = set()


def stop(number: int, _: object) -> None:
    """Sections are sessions of their own: whoever stops this does not reach them."""
    for process in list(RUNNING):
        end_group(process)
    os._exit(128 + number)  # threads wait for sections


def prove(scale: str, folder: Path, results: Path, only: Sequence[str] | None) -> list[Found]:
    for part in ("rows", "logs", "blip", "blip2"):
        shutil.rmtree(folder / part, ignore_errors=True)
    for part in ("rows", "logs"):
        (folder / part).mkdir(parents=True)
    results.mkdir(parents=True, exist_ok=True)
    started, every = time.monotonic(), list[Found]()
    patience = 1 if scale == "full" else DRY_PATIENCE
    for group in GROUPS if scale == "full" else side_by_side(GROUPS):
        chosen = {name: limit * patience for name, limit in group.items() if only is None or name in only}
        left = BUDGET_SECONDS * patience - (time.monotonic() - started)
        every += run_group(chosen, scale, folder, left)
        write(results, scale, every, time.monotonic() - started)
    shutil.rmtree(folder / "blip", ignore_errors=True)  # gigabytes that nobody needs any more
    shutil.rmtree(folder / "blip2", ignore_errors=True)
    return every


def side_by_side(groups: Sequence[dict[str, float]]) -> Iterator[dict[str, float]]:
    """What is not measured for its time need not run alone; the last groups need the weights of the first ones."""
    for some in (groups[:2], groups[2:]):
        yield {name: limit for group in some for name, limit in group.items()}


def run_group(group: dict[str, float], scale: str, folder: Path, left: float) -> Iterator[Found]:
    """The sections of a group side by side, as many as there are CPUs."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(lambda name: run_section(name, scale, folder, min(group[name], left)), group)


def run_section(name: str, scale: str, folder: Path, limit: float) -> Found:
    if limit < LEAST_SECONDS:
        return Found(name, failure="not begun: no time was left")
    print(f"{name} ...", flush=True)
    command = [sys.executable, "-m", "bench.gpu.section", name, "--scale", scale, "--folder", str(folder)]
    log_file, started = folder / "logs" / f"{name}.log", time.monotonic()
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment(scale))
        RUNNING.add(process)
        try:
            status = process.wait(limit)
            failure = f"it ended with status {status}" if status else ""
        except subprocess.TimeoutExpired:
            failure = f"it was stopped after {limit:.0f} s"
        finally:
            end_group(process)
            RUNNING.discard(process)
    if failure:
        lines = log_file.read_text(errors="replace").splitlines()[-LOG_LINES:]
        failure = "\n".join([failure, *lines])
    return Found(name, time.monotonic() - started, read_rows(folder, name), failure)


def environment(scale: str) -> dict[str, str]:
    """Side by side, threads that spin while they wait would take the cores from each other."""
    return {**os.environ, **({} if scale == "full" else {"OMP_WAIT_POLICY": "passive"})}


def end_group(process: subprocess.Popen[bytes]) -> None:
    """It, and the servers that it may have left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)


def read_rows(folder: Path, name: str) -> list[Row]:
    path = rows_file(folder, name)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def is_broken(found: Found) -> bool:
    """Whether it did not run to its end, or a row tells a failure."""
    return bool(found.failure) or any(row.get("failure") for row in found.rows)


def write(results: Path, scale: str, every: Sequence[Found], seconds: float) -> None:
    content = {"scale": scale, "seconds": seconds, "sections": [asdict(found) for found in every]}
    (results / "gpu.json").write_text(json.dumps(content, indent=1) + "\n")
    (results / "gpu.md").write_text(render(content))


if __name__ == "__main__":
    sys.exit(main())
