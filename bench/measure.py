"""What the benchmarks of a running service share: what is asked, how long it takes, and a table of it."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

import httpx
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from models.base import Task
from models.catalog import read_catalog
from models.checkpoint import CheckpointPlan, how_to_compute, kept_bytes, plan_checkpoints


class Case(NamedTuple):
    """A request about a picture."""

    name: str
    task: Task
    fields: Mapping[str, str | int] = {}


def pictures() -> Iterator[bytes]:
    """A new picture each time, so that nothing comes from the cache."""
    photo = Image.fromarray(load_sample_image("china.jpg"))
    for left in count():
        encoded = io.BytesIO()
        photo.crop((left, 0, left + 480, 400)).save(encoded, "JPEG")
        yield encoded.getvalue()


def median_seconds(client: httpx.Client, case: Case, images: Iterator[bytes], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        image = next(images)
        started = time.monotonic()
        client.post(f"/{case.task}", files={"image": image}, data=case.fields).raise_for_status()
        taken.append(time.monotonic() - started)
    return statistics.median(taken)


def plans(catalog: Path, profile: str, dtype: str) -> set[CheckpointPlan]:
    how = how_to_compute(dtype, torch.device("cpu"))
    planned = plan_checkpoints(read_catalog(catalog).profile(profile), *how)
    return {plan for model in planned.values() for plan in model.values()}


@cache
def weight_bytes(catalog: Path, profile: str, dtype: str) -> int:
    """The bytes of the weights, as they are kept in memory. All towers are read for it."""
    return kept_bytes(plans(catalog, profile, dtype))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    width = max(len(cell) for row in rows for cell in row) + 2
    for row in rows:
        print("".join(f"{cell:>{width}}" for cell in row))
