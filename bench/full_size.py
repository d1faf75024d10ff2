"""`make bench`: BLIP-base at full size, with random weights, served for real: load time, memory, seconds per answer."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import httpx
from tqdm import tqdm

from bench.checkpoints import write_blip_base
from bench.measure import Case, median_seconds, pictures, print_table, weight_bytes
from bench.service import running_service
from models.base import Task

REPEATS = 5
CASES = (
    Case("caption s", Task.CAPTION),
    Case("vqa s", Task.VQA, {"question": "what is it?"}),
    Case("match s", Task.MATCH, {"text": "a picture"}),
    Case("embed s", Task.EMBED),
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        catalog = write_blip_base(Path(folder))
        rows = [measure(catalog, dtype) for dtype in tqdm(("fp32", "bf16"), desc="dtypes")]
    heads = ("dtype", "start s", "weights MB", "peak MB", "peak/weights", *(case.name for case in CASES))
    print_table([heads, *rows])


def measure(catalog: Path, dtype: str) -> list[str]:
    """One row of the table: the start (interpreter, weights, warm-up), memory, and the median of one task at a time."""
    weights, images = weight_bytes(catalog, "random-base", dtype), pictures()
    started = time.monotonic()
    with running_service(catalog=catalog, profile="random-base", dtype=dtype) as service:
        start = time.monotonic() - started
        with httpx.Client(base_url=service.url, timeout=120) as client:
            seconds = [median_seconds(client, case, images, REPEATS) for case in CASES]
        peak = service.peak_bytes()
    memory = [f"{weights / 1e6:.0f}", f"{peak / 1e6:.0f}", f"{peak / weights:.2f}"]
    return [dtype, f"{start:.1f}", *memory, *(f"{value:.2f}" for value in seconds)]


if __name__ == "__main__":
    main()
