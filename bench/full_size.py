"""`make bench`: BLIP-base at full size, with random weights, served for real: load time, memory, seconds per answer."""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from PIL import Image
from sklearn.datasets import load_sample_image
from tqdm import tqdm

from bench.checkpoints import write_blip_base
from bench.service import running_service
from models.base import Task
from models.catalog import read_catalog
from models.device import DTYPES
from models.loader import plan_checkpoints

REPEATS = 5
FIELDS: dict[Task, dict[str, str]] = {
    Task.CAPTION: {},
    Task.VQA: {"question": "what is it?"},
    Task.MATCH: {"text": "a picture"},
    Task.EMBED: {},
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        catalog = write_blip_base(Path(folder))
        rows = [measure(catalog, dtype) for dtype in tqdm(("fp32", "bf16"), desc="dtypes")]
    heads = ("dtype", "start s", "weights MB", "peak MB", "peak/weights", *(f"{task} s" for task in Task))
    print("".join(f"{head:>14}" for head in heads))
    for row in rows:
        print("".join(f"{cell:>14}" for cell in row))


def measure(catalog: Path, dtype: str) -> list[str]:
    """One row of the table: the start (interpreter, weights, warm-up), memory, and the median of one task at a time."""
    weights = weight_bytes(catalog, dtype)
    started = time.monotonic()
    with running_service(catalog=catalog, profile="random-base", dtype=dtype) as service:
        start = time.monotonic() - started
        with httpx.Client(base_url=service.url, timeout=120) as client:
            seconds = [median_seconds(lambda number, task=task: ask(client, task, number)) for task in Task]  # type: ignore[misc]
        peak = service.peak_bytes()
    memory = [f"{weights / 1e6:.0f}", f"{peak / 1e6:.0f}", f"{peak / weights:.2f}"]
    return [dtype, f"{start:.1f}", *memory, *(f"{value:.2f}" for value in seconds)]


def weight_bytes(catalog: Path, dtype: str) -> int:
    """What is kept: random towers are all different, so none is shared."""
    plans = plan_checkpoints(read_catalog(catalog).profile("random-base"), DTYPES[dtype])
    return sum(plan.num_bytes for model in plans.values() for plan in model.values())


def ask(client: httpx.Client, task: Task, number: int) -> None:
    client.post(f"/{task}", files={"image": photo(number, task)}, data=FIELDS[task]).raise_for_status()


def photo(number: int, task: Task) -> bytes:
    """Another picture each time, so that nothing comes from the cache."""
    left = 10 * number + list(Task).index(task)
    picture = Image.fromarray(load_sample_image("china.jpg")).crop((left, 0, left + 480, 400))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG")
    return encoded.getvalue()


def median_seconds(ask_once: Callable[[int], None]) -> float:
    taken = []
    for number in range(REPEATS):
        started = time.monotonic()
        ask_once(number)
        taken.append(time.monotonic() - started)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
