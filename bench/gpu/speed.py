"""Sections: the tower's share of what the card can do, and the time of a step; as they are, and compiled. Below HTTP,
with random pictures."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from bench.gpu.decoding import Change, as_it_is, compiled, decoding
from bench.gpu.machine import device_name
from bench.gpu.peaks import product_rate, sheet_rate
from bench.gpu.setup import TOKENS, Row, Setup, first_line
from bench.gpu.timing import device_seconds, wall_seconds
from models.base import Checkpoint, Item, Op, Task
from models.inputs import CaptionInput, GenerationSettings
from models.layers.vit import ViTConfig
from models.loader import load

PROFILES = {"BLIP": ("blip", "random-base"), "BLIP-2": ("blip2", "random-blip2")}
WARM_STEPS = 3
OPERATIONS = 12  # of a profile


def eager(setup: Setup) -> Iterator[Row]:
    """Graphs last: one that fails can spoil the device for the process."""
    for name, checkpoint in loaded(setup):
        model = {"model": name}
        for row in tower(checkpoint, setup.scale.batches, "as it is", as_it_is, setup):
            yield model | row
        for rows in setup.scale.rows:
            for beams in (1, 3):
                yield model | whole_step(checkpoint, rows, beams, setup)
        for row in profile(checkpoint, setup.scale.rows[1], setup):
            yield model | row
        for rows in setup.scale.rows:
            for row in decoding(checkpoint, captions(checkpoint, rows, 1), "as it is", as_it_is, setup):
                yield model | row


def compiled_too(setup: Setup) -> Iterator[Row]:
    """Of a few sizes, as each is compiled anew. The tower as BLIP_COMPILE=1 does."""
    for name, checkpoint in loaded(setup):
        model = {"model": name}
        for row in tower(checkpoint, setup.scale.batches[::2], "compiled", compiled, setup):
            yield model | row
        items = captions(checkpoint, setup.scale.rows[1], 1)
        for row in decoding(checkpoint, items, "compiled", compiled, setup):
            yield model | row


def loaded(setup: Setup) -> Iterator[tuple[str, Checkpoint]]:
    """The captioning checkpoints, one after the other, where their weights were written."""
    for name, (folder, profile) in PROFILES.items():
        catalog = setup.folder / folder / "catalog.toml"
        if not catalog.is_file():
            continue
        (model,) = load(profile, catalog=catalog, device=str(setup.device), dtype=setup.dtype, threads=setup.threads)
        yield name, model.checkpoints[Task.CAPTION]
        del model
        gc.collect()
        if setup.device.type == "cuda":
            torch.cuda.empty_cache()


@torch.inference_mode()
def tower(checkpoint: Checkpoint, batches: Sequence[int], how: str, change: Change, setup: Setup) -> list[Row]:
    """Seconds by events, and the share of a matrix product that is measured beside it."""
    sheet = sheet_rate(device_name(setup), setup.dtype)
    runner: Any = checkpoint.tower
    module, side, found = change(runner._tower, setup), checkpoint.preprocessing.image_size, list[Row]()
    for batch in batches:
        pixels = torch.randn(batch, 3, side, side, device=setup.device)
        row: Row = {"tower": how, "dtype": setup.dtype, "batch": batch}
        try:
            times = device_seconds(lambda: module(pixels), setup.device, setup.scale.repeats)  # noqa: B023
        except Exception as error:
            found.append(row | {"failure": first_line(error)})
            continue
        seconds = statistics.median(times)
        rate = batch * tower_flop(runner._tower.config) / seconds
        limit = product_rate(setup.dtype, setup.scale.gemm_size, setup.device, setup.scale.repeats)
        row |= {"ms": seconds * 1e3, "images/s": batch / seconds, "TFLOP/s": rate / 1e12}
        found.append(row | {"of the product": rate / limit, "of the data sheet": rate / sheet if sheet else None})
    return found


def tower_flop(config: ViTConfig) -> float:
    """Multiplications and additions of one picture: the products of all blocks, attention's two, and the patches."""
    tokens, width = config.num_tokens, config.width
    block = tokens * width * (4 * width + 2 * config.mlp_width) + 2 * tokens**2 * width
    patches = (tokens - 1) * 3 * config.patch_size**2 * width
    return 2.0 * (config.num_layers * block + patches)


def whole_step(checkpoint: Checkpoint, rows: int, beams: int, setup: Setup) -> Row:
    """As the engine calls it: with the search, which is Python's; and the prefill before."""
    items, row = captions(checkpoint, rows, beams), {"rows": rows, "beams": beams}
    try:
        prefill = wall_seconds(lambda: checkpoint.heads.generate(items), setup.device, 3, warm_up=1)
        generation = checkpoint.heads.generate(items)
        times = wall_seconds(generation.step, setup.device, TOKENS - WARM_STEPS - 1, WARM_STEPS)
    except Exception as error:
        return row | {"failure": first_line(error)}
    step = statistics.median(times)
    return row | {"prefill ms": statistics.median(prefill) * 1e3, "step ms": step * 1e3, "tokens/s": rows / step}


def captions(checkpoint: Checkpoint, rows: int, beams: int) -> list[Item]:
    """Captions of TOKENS tokens, each about a picture of its own."""
    asked = CaptionInput(settings=GenerationSettings(num_beams=beams, min_new_tokens=TOKENS, max_new_tokens=TOKENS))
    side, runner = checkpoint.preprocessing.image_size, checkpoint.tower
    encoded = [runner.encode([Item(Op.ENCODE, None, torch.randn(3, side, side))])[0] for _ in range(rows)]
    return [replace(checkpoint.heads.prepare(asked), features=features) for features in encoded]


def profile(checkpoint: Checkpoint, rows: int, setup: Setup) -> Iterator[Row]:
    """Where a step's time goes: the operations that take the device longest."""
    on_cuda = setup.device.type == "cuda"
    kind = torch.profiler.ProfilerActivity
    generation = checkpoint.heads.generate(captions(checkpoint, rows, 1))
    for _ in range(WARM_STEPS):
        generation.step()
    with torch.profiler.profile(activities=[kind.CPU, *([kind.CUDA] if on_cuda else [])]) as profiler:
        for _ in range(WARM_STEPS):
            generation.step()
    order = "self_device_time_total" if on_cuda else "self_cpu_time_total"
    found = sorted(profiler.key_averages(), key=lambda one: -getattr(one, order))
    every = sum(getattr(one, order) for one in found) or 1.0
    for one in found[:OPERATIONS]:
        yield {
            "rows": rows,
            "operation": one.key[:90],
            "calls a step": one.count / WARM_STEPS,
            "share": getattr(one, order) / every,
        }
