"""`make bench-blip2`: BLIP-2 at full size (blip2-opt-2.7b beside blip2-itm-vit-g), random weights, served for real.

Load time, memory, how often the tower is held, seconds per answer."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import Any

import httpx

from bench.blip2_checkpoints import write_blip2
from bench.measure import Case, median_seconds, pictures, plans, print_table
from bench.service import RunningService, running_service
from models.base import Task
from models.checkpoint import kept_bytes

TOKENS = 20  # of a caption; random weights never stop
CASES = (
    Case("caption, 1 beam", Task.CAPTION, {"num_beams": 1, "max_new_tokens": TOKENS}),
    Case("caption, 5 beams", Task.CAPTION, {"num_beams": 5, "max_new_tokens": TOKENS}),
    Case("vqa, 10 tokens", Task.VQA, {"question": "what is it?"}),
    Case("match", Task.MATCH, {"text": "a picture"}),
    Case("embed", Task.EMBED),
)
TIMEOUT_SECONDS = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/blip2"), help="for 9.8 GB; default: %(default)s")
    parser.add_argument("--dtype", default="bf16", choices=("bf16", "fp32"), help="default: %(default)s")
    parser.add_argument("--int8", action="store_true", help="quantise the language model")
    parser.add_argument("--repeats", type=int, default=3, help="of each request; default: %(default)s")
    options = parser.parse_args()
    catalog = write_blip2(options.folder).resolve()
    profile = "random-blip2-int8" if options.int8 else "random-blip2"
    print_table(measure(catalog, profile, options.dtype, options.repeats))


def measure(catalog: Path, profile: str, dtype: str, repeats: int) -> list[tuple[str, str]]:
    """The rows of the table. The start includes the interpreter, the weights and the warm-up."""
    checkpoints = plans(catalog, profile, dtype)
    weights, images = kept_bytes(checkpoints), pictures()
    settings: dict[str, Any] = {"request_timeout_seconds": TIMEOUT_SECONDS, "stuck_seconds": 2 * TIMEOUT_SECONDS}
    started = time.monotonic()
    with running_service(catalog=catalog, profile=profile, dtype=dtype, **settings) as service:
        start, loaded = time.monotonic() - started, service.peak_bytes()
        with httpx.Client(base_url=service.url, timeout=TIMEOUT_SECONDS) as client:
            seconds = {case.name: median_seconds(client, case, images, repeats) for case in CASES}
        peak, towers = service.peak_bytes(), towers_used(service)
    return [
        ("start s", f"{start:.1f}"),
        ("weights MB", f"{weights / 1e6:.0f}"),
        ("peak MB, start", f"{loaded / 1e6:.0f}"),
        ("peak/weights", f"{loaded / weights:.3f}"),
        ("peak MB", f"{peak / 1e6:.0f}"),
        ("checkpoints", str(len(checkpoints))),
        ("towers", str(len(towers))),
        *((f"{name} s", f"{value:.2f}") for name, value in seconds.items()),
    ]


def towers_used(service: RunningService) -> set[str]:
    """The towers that have encoded a picture, by their unit."""
    metrics = httpx.get(f"{service.url}/metrics").raise_for_status().text
    return set(re.findall(r'unit="(tower-\w+)"', metrics))


if __name__ == "__main__":
    main()
