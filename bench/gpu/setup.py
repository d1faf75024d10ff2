"""What a section of the proof gets: the device, and how much to measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from app.settings import default_threads
from bench import blip2_checkpoints
from bench.blip2_checkpoints import Kind
from bench.checkpoints import TEXT, VISION
from models.device import choose_dtype, dtype_name

Row = dict[str, Any]  # what a section found, one line of its table

TOKENS = 20  # of every caption, so that work is equal


@dataclass(frozen=True, slots=True)
class Scale:
    name: str
    vision: Mapping[str, Any]  # BLIP's sizes
    text: Mapping[str, Any]
    kinds: Mapping[str, Kind]  # BLIP-2's checkpoints
    gemm_size: int
    copied_bytes: int
    batches: tuple[int, ...]  # of the tower, in pictures
    rows: tuple[int, ...]  # of a step
    repeats: int  # of each timed call
    clients: tuple[int, ...]
    beams_at: Mapping[int, int]  # 3 beams, too, by this many clients: beams by clients
    warm_seconds: float  # of each cell, before it counts
    seconds: float  # that each cell counts
    pictures: int
    every: int  # one golden case in this many is asked
    only_tests: str  # an expression that chooses golden tests; empty: all
    demo_requests: int


FULL = Scale(
    name="full",
    vision=VISION,
    text=TEXT,
    kinds=blip2_checkpoints.KINDS,
    gemm_size=8192,
    copied_bytes=2**32,
    batches=(1, 4, 16, 64),
    rows=(1, 16, 64),
    repeats=20,
    clients=(1, 16, 64),
    beams_at={16: 3},
    warm_seconds=2.0,
    seconds=4.0,
    pictures=256,
    every=1,
    only_tests="",
    demo_requests=96,
)
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
# Each section once, to see that all of it runs.
DRY = Scale(
    name="dry",
    vision={**VISION, **TINY, "image_size": 32},
    text={**TEXT, **TINY},
    kinds={name: kind._replace(sizes={}) for name, kind in blip2_checkpoints.KINDS.items()},
    gemm_size=256,
    copied_bytes=2**24,
    batches=(1, 2),
    rows=(1, 2),
    repeats=3,
    clients=(1, 4),
    beams_at={4: 3},
    warm_seconds=0.3,
    seconds=1.0,
    pictures=16,
    every=32,
    only_tests="matching or pairs",
    demo_requests=8,
)
SCALES = {scale.name: scale for scale in (FULL, DRY)}


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"[:300]


@dataclass(frozen=True, slots=True)
class Setup:
    scale: Scale
    folder: Path  # for weights and logs
    device: torch.device = field(default_factory=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    @property
    def dtype(self) -> str:
        """The one in which models are served: half precision on a GPU."""
        return dtype_name(choose_dtype("auto", self.device))

    @property
    def threads(self) -> int:
        return default_threads()

    @property
    def blip(self) -> Path:
        return self.folder / "blip"

    @property
    def blip2(self) -> Path:
        return self.folder / "blip2"
