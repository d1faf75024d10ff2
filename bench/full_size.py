"""`make bench`: BLIP-base at full size, with random weights, served for real: load time, memory, seconds per answer."""

from __future__ import annotations

import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from PIL import Image
from sklearn.datasets import load_sample_image
from tqdm import tqdm

from bench.checkpoints import write_blip_base
from models.base import Task
from models.catalog import read_catalog
from models.device import DTYPES
from models.loader import plan_checkpoints

PORT = 8470
REPEATS = 5


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        catalog = write_blip_base(Path(folder))
        print("dtype  load s  weights MB  peak MB  peak/weights  caption s  vqa s  match s  embed s")  # noqa: T201
        for dtype in ("fp32", "bf16"):
            print(measure(catalog, dtype))  # noqa: T201


def measure(catalog: Path, dtype: str) -> str:
    """One row of the table."""
    weights = weight_bytes(catalog, dtype)
    started = time.monotonic()
    with serve(catalog, dtype) as (process, client):
        load = time.monotonic() - started
        seconds = [median_seconds(ask) for ask in tqdm(requests(client), desc=dtype, leave=False)]
        peak = peak_bytes(process.pid)
    answers = "  ".join(f"{value:.2f}" for value in seconds)
    return f"{dtype}   {load:.1f}   {weights / 1e6:.0f}   {peak / 1e6:.0f}   {peak / weights:.2f}   {answers}"


def weight_bytes(catalog: Path, dtype: str) -> int:
    plans = plan_checkpoints(read_catalog(catalog).profile("random-base"), DTYPES[dtype])
    return sum(plan.num_bytes for model in plans.values() for plan in model.values())


@contextmanager
def serve(catalog: Path, dtype: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """The real service, ready."""
    environment = os.environ | {
        "BLIP_CATALOG": str(catalog),
        "BLIP_PROFILE": "random-base",
        "BLIP_DTYPE": dtype,
        "BLIP_PORT": str(PORT),
        "BLIP_LOG_LEVEL": "warning",
    }
    process = subprocess.Popen([sys.executable, "-m", "app"], env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=120) as client:
            wait_until_ready(process, client)
            yield process, client
    finally:
        process.terminate()
        process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], client: httpx.Client) -> None:
    while process.poll() is None:
        try:
            if client.get("/health/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"the service stopped with {process.returncode}")


def requests(client: httpx.Client) -> list[Callable[[int], httpx.Response]]:
    """A request for each task; each repetition has its own picture, so that nothing comes from the cache."""
    return [
        lambda number: client.post("/caption", files={"image": photo(number, Task.CAPTION)}),
        lambda number: client.post("/vqa", files={"image": photo(number, Task.VQA)}, data={"question": "what is it?"}),
        lambda number: client.post("/match", files={"image": photo(number, Task.MATCH)}, data={"text": "a picture"}),
        lambda number: client.post("/embed", files={"image": photo(number, Task.EMBED)}),
    ]


def photo(number: int, task: Task) -> bytes:
    left = 10 * number + len(task)
    picture = Image.fromarray(load_sample_image("china.jpg")).crop((left, 0, left + 480, 400))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG")
    return encoded.getvalue()


def median_seconds(ask: Callable[[int], httpx.Response]) -> float:
    taken = []
    for number in range(REPEATS):
        started = time.monotonic()
        ask(number).raise_for_status()
        taken.append(time.monotonic() - started)
    return statistics.median(taken)


def peak_bytes(pid: int) -> int:
    """The largest resident memory that the process had (Linux)."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
