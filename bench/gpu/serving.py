"""Sections: the real service beside a wrapper around transformers, one at a time, in captions a second by clients."""

from __future__ import annotations

import asyncio
import io
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import cycle
from pathlib import Path
from typing import IO

import numpy as np
import psutil
import torch
from PIL import Image

from bench.cells import percentile
from bench.client import Span, Turn, keep_busy
from bench.gpu.setup import TOKENS, Row, Setup
from bench.service import RunningService, free_port, running, running_service
from bench.workloads import Work

SIZE = (640, 480)  # pixels of each picture, a usual one of the web
KINDS = ("ours", "wrapper")
PATIENCE_SECONDS = 10.0  # for what is still under way when a cell ends
TIMEOUT_SECONDS = 300


def blip(setup: Setup) -> Iterator[Row]:
    yield from contest(setup, setup.blip, "random-base", "bench.peers.wrapper")


def blip2(setup: Setup) -> Iterator[Row]:
    if not (setup.blip2 / "catalog.toml").is_file():
        yield {"failure": "its weights were not written"}
        return
    yield from contest(setup, setup.blip2, "random-blip2", "bench.peers.blip2_wrapper")


def contest(setup: Setup, folder: Path, profile: str, wrapper: str) -> Iterator[Row]:
    pictures = make_pictures(setup.scale.pictures)
    for kind in KINDS:
        (setup.folder / "logs").mkdir(exist_ok=True)
        with (setup.folder / "logs" / f"{profile}-{kind}.log").open("wb") as log:
            before, started = used_bytes(setup.device), time.monotonic()
            try:
                server = _ours(setup, folder, profile, log) if kind == "ours" else _wrapper(setup, folder, wrapper, log)
                with server as service:
                    yield {
                        "contender": kind,
                        "dtype": setup.dtype,
                        "start s": time.monotonic() - started,
                        "device GB": (used_bytes(setup.device) - before) / 1e9,
                    }
                    yield from cells(setup, service, kind, pictures)
            except RuntimeError as error:
                yield {"contender": kind, "failure": str(error)}


def _ours(setup: Setup, folder: Path, profile: str, log: IO[bytes]) -> AbstractContextManager[RunningService]:
    """As it is started by default, but for the cache of features: every picture counts as new."""
    return running_service(
        log=log,
        device=str(setup.device),
        dtype=setup.dtype,
        catalog=(folder / "catalog.toml").resolve(),
        profile=profile,
        max_batch_size=64,
        feature_cache_bytes=0,
        request_timeout_seconds=TIMEOUT_SECONDS,
        stuck_seconds=2 * TIMEOUT_SECONDS,
        drain_seconds=2,
    )


def _wrapper(setup: Setup, folder: Path, module: str, log: IO[bytes]) -> AbstractContextManager[RunningService]:
    port = free_port()
    command = [sys.executable, "-m", module, "--folder", str(folder), "--dtype", setup.dtype]
    return running([*command, "--device", str(setup.device), "--port", str(port)], port, "/health", log=log)


def cells(setup: Setup, service: RunningService, kind: str, pictures: list[bytes]) -> Iterator[Row]:
    """Few clients first: what many leave under way would disturb the next cell."""
    scale = setup.scale
    for clients in scale.clients:
        for beams in (1, *([scale.beams_at[clients]] if clients in scale.beams_at else [])):
            works = (Work("caption", number, (), beams, TOKENS) for number in cycle(range(len(pictures))))
            span = Span(
                warm_seconds=scale.warm_seconds,
                seconds=scale.warm_seconds + scale.seconds,
                burst=clients if kind == "ours" else 1,  # ours answers them at about the same time
                patience_seconds=PATIENCE_SECONDS,
            )
            row: Row = {"contender": kind, "clients": clients, "beams": beams}
            try:
                turn = asyncio.run(keep_busy(service.url, kind, works, clients, pictures, span))
                yield row | figures(turn) | {"device GB": used_bytes(setup.device) / 1e9}
            except* Exception as group:
                failure = repr(group.exceptions[0])[:300]
                yield row | {"failure": failure}


def figures(turn: Turn) -> Row:
    if not turn.seconds:
        return {"failure": "no caption was done in time"}
    return {
        "captions": turn.num_answers,
        "captions/s": turn.num_answers / turn.elapsed,
        "p50 s": percentile(turn.seconds, 0.5),
        "p95 s": percentile(turn.seconds, 0.95),
    }


def used_bytes(device: torch.device) -> int:
    """Of the whole card, by whomever; on a CPU of the host."""
    if device.type != "cuda":
        memory = psutil.virtual_memory()
        return int(memory.total - memory.available)
    free, total = torch.cuda.mem_get_info(device)
    return total - free


def make_pictures(count: int) -> list[bytes]:
    """Distinct JPEGs of coarse random colours, the same in every run."""
    made = []
    for seed in range(count):
        colours = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        encoded = io.BytesIO()
        Image.fromarray(colours).resize(SIZE, Image.Resampling.BICUBIC).save(encoded, "JPEG", quality=90)
        made.append(encoded.getvalue())
    return made
