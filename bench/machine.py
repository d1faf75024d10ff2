"""The machine's own limit, and how near the tower comes to it, ours and those of peers. In a process of its own, as the
runtimes' threads and memory would stay: `python -m bench.machine FOLDER` with the checkpoints writes a line of JSON for
each tower."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from app.settings import default_threads
from bench.budget import Budget
from bench.contenders import PROFILE
from bench.measure import plans
from bench.peers.towers import Tower, towers
from models.device import DTYPES, INT8
from models.layers.vit import ViTConfig

GEMM_SIZE, TRIAL_SIZE = 2048, 256
EMULATED_SHARE = 0.05  # of the fp32 rate: a dtype that is slower than this is emulated in software
TOWER_FLOP = 110e9  # of one image at 384 pixels
BATCHES = (1, 4, 8)
DTYPES_MEASURED = ("fp32", "bf16", INT8)
VIT_BASE = ViTConfig(384, 16, 768, 12, 12, 3072, 1e-6)
OURS, COMPILED = "ours", "ours, compiled"
GRACE_SECONDS = 240.0  # more than its time, for what takes one round and the compiler

# dtype, tower, note; by batch, of each round: seconds an image, and the GEMM rate beside it (operations per second).
Row = dict[str, Any]


class Effort(NamedTuple):
    batches: tuple[int, ...]
    rounds: int
    seconds: float  # of all towers; each has one round at least
    compiled: bool  # ours by torch.compile, too


def measure(folder: Path, effort: Effort, found: list[Row]) -> None:
    """Adds to `found` those rows that were done, also if it is stopped or takes far longer than its time."""
    options = ["--batches", *map(str, effort.batches), "--rounds", str(effort.rounds), "--seconds", str(effort.seconds)]
    options += ["--compiled"] if effort.compiled else []
    command = [sys.executable, "-m", "bench.machine", str(folder), *options]
    with tempfile.TemporaryFile() as rows:
        try:
            subprocess.run(command, stdout=rows, timeout=effort.seconds + GRACE_SECONDS, check=True)
        finally:
            rows.seek(0)
            found += [json.loads(line) for line in rows if line.endswith(b"\n")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=600.0, help="default: %(default)s")
    parser.add_argument("--compiled", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(default_threads())
    effort = Effort(tuple(options.batches), options.rounds, options.seconds, options.compiled)
    for row in rows(options.folder / "catalog.toml", effort):
        print(json.dumps(row), flush=True)


def rows(catalog: Path, effort: Effort) -> Iterator[Row]:
    """One tower at a time."""
    fp32_rate = gemm_rate("fp32", GEMM_SIZE)
    notes = {dtype: unfit(dtype, fp32_rate) for dtype in DTYPES_MEASURED}
    yield from ({"dtype": dtype, "tower": "", "note": note} for dtype, note in notes.items() if note)
    todo = [
        (dtype, name, make)
        for dtype, note in notes.items()
        if not note
        for name, make in every_tower(catalog, dtype, effort.compiled)
    ]
    budget = Budget(effort.seconds, [1.0] * len(todo))
    for dtype, name, make in todo:
        yield row(dtype, name, make, effort, time.monotonic() + budget.share(1.0))


def every_tower(catalog: Path, dtype: str, compiled: bool) -> Iterator[tuple[str, Callable[[], Tower]]]:
    """Name, and how to make it."""
    yield OURS, partial(our_tower, catalog, dtype, to_compile=False)
    if compiled and dtype != INT8:
        yield COMPILED, partial(our_tower, catalog, dtype, to_compile=True)
    yield from towers(VIT_BASE, dtype)


def our_tower(catalog: Path, dtype: str, *, to_compile: bool) -> Tower:
    """As it is served."""
    plan = next(iter(plans(catalog, PROFILE, dtype)))
    tower = plan.load_tower(torch.device("cpu"), to_compile=to_compile)
    return torch.compile(tower, dynamic=False) if to_compile else tower


def unfit(dtype: str, fp32_rate: float) -> str:
    """Why products are not measured in it. At a small size, as an emulated dtype would take minutes."""
    try:
        rate = max(gemm_rate(dtype, TRIAL_SIZE) for _ in range(5))
    except Exception as error:
        return f"not supported: {error}"
    is_emulated = dtype != "fp32" and rate < EMULATED_SHARE * fp32_rate  # a small product of fp32 may be held up, too
    return f"emulated, {rate / 1e9:.3g} GFLOP/s" if is_emulated else ""


@torch.inference_mode()
def row(dtype: str, name: str, make: Callable[[], Tower], effort: Effort, end: float) -> Row:
    """Each batch beside a GEMM, which tells when the machine gets slower. One round at least, others until `end`."""
    found: Row = {"dtype": dtype, "tower": name, "note": "", "seconds": {}, "gemm": {}}
    try:
        tower = make()
        for batch in effort.batches:
            tower(torch.randn(batch, 3, 384, 384))  # warms up, compiles
        for number in range(effort.rounds):
            if number and time.monotonic() > end:
                break
            for batch in effort.batches:
                rate = gemm_rate(dtype, GEMM_SIZE)
                seconds = seconds_of(partial(tower, torch.randn(batch, 3, 384, 384)), times=1)
                found["seconds"].setdefault(str(batch), []).append(seconds / batch)
                found["gemm"].setdefault(str(batch), []).append(rate)
    except Exception as error:
        found["note"] = next(iter(str(error).splitlines()), "") or type(error).__name__
    return found


def gemm_rate(dtype: str, size: int) -> float:
    """The rate of multiplying square matrices, in operations (multiplications and additions) per second."""
    seconds = seconds_of(int8_product(size) if dtype == INT8 else partial(torch.matmul, *float_matrices(dtype, size)))
    return 2 * size**3 / seconds


def float_matrices(dtype: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.randn(size, size).to(DTYPES[dtype])
    return values, values


def int8_product(size: int) -> Callable[[], object]:
    """oneDNN's, of packed weights, as torch has it."""
    packed = torch.ops.onednn.qlinear_prepack(torch.randint(-64, 64, (size, size), dtype=torch.int8), None)
    levels = torch.randint(0, 255, (size, size), dtype=torch.uint8)
    scales, zeros = torch.ones(size), torch.zeros(size, dtype=torch.int64)
    return lambda: torch.ops.onednn.qlinear_pointwise(
        levels, 1.0, 128, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )


def seconds_of(call: Callable[[], object], times: int = 3) -> float:
    """The best of several runs: what the machine can do."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return min(taken)


def image_seconds(row: Row) -> dict[str, float]:
    """Seconds an image, by batch."""
    return {batch: statistics.median(values) for batch, values in row.get("seconds", {}).items()}


def shares(row: Row) -> dict[str, float]:
    """The tower's rate over that of the GEMM beside it, by batch."""
    return {
        batch: statistics.median(
            TOWER_FLOP / seconds / rate for seconds, rate in zip(values, row["gemm"][batch], strict=True)
        )
        for batch, values in row.get("seconds", {}).items()
    }


if __name__ == "__main__":
    main()
