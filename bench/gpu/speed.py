"""Sections: the tower's share of what the card can do, and the time of a step; as they are, compiled, and as CUDA
graphs. Below HTTP, with random pictures."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.gpu.machine import device_name
from bench.gpu.peaks import product_rate, sheet_rate
from bench.gpu.setup import TOKENS, Row, Setup
from bench.gpu.timing import captured, device_seconds, wall_seconds
from models.base import CaptionInput, Checkpoint, GenerationSettings, Item, Op, Task
from models.generation.kv_cache import Cache, Step
from models.layers.vit import ViTConfig
from models.loader import load

PROFILES = {"BLIP-base": ("blip", "random-base"), "BLIP-2 OPT 2.7B": ("blip2", "random-blip2")}
WARM_STEPS = 3


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


# --- the tower ---


def tower(setup: Setup) -> Iterator[Row]:
    yield from towers(setup, "as it is", lambda module: module)


def compiled_tower(setup: Setup) -> Iterator[Row]:
    """By what BLIP_COMPILE=1 does."""
    yield from towers(setup, "compiled", lambda module: torch.compile(module, dynamic=False))


def towers(setup: Setup, how: str, change: Callable[[Any], Callable[[Tensor], Tensor]]) -> Iterator[Row]:
    """Seconds by events, and the share of the matrix product that is measured beside it."""
    sheet = sheet_rate(device_name(setup), setup.dtype)
    for name, checkpoint in loaded(setup):
        runner: Any = checkpoint.tower
        module, side = change(runner._tower), checkpoint.preprocessing.image_size
        for batch in setup.scale.batches:
            pixels = torch.randn(batch, 3, side, side, device=setup.device)
            row: Row = {"model": name, "tower": how, "dtype": setup.dtype, "batch": batch}
            try:
                with torch.inference_mode():
                    seconds = statistics.median(
                        device_seconds(lambda: module(pixels), setup.device, setup.scale.repeats)  # noqa: B023
                    )
            except Exception as error:
                yield row | {"failure": first_line(error)}
                continue
            rate = batch * tower_flop(runner._tower.config) / seconds
            limit = product_rate(setup.dtype, setup.scale.gemm_size, setup.device, setup.scale.repeats)
            row |= {"ms": seconds * 1e3, "images/s": batch / seconds, "TFLOP/s": rate / 1e12}
            yield row | {"of the product": rate / limit, "of the data sheet": rate / sheet if sheet else None}


def tower_flop(config: ViTConfig) -> float:
    """Multiplications and additions of one picture: the products of all blocks, attention's two, and the patches."""
    tokens, width = config.num_tokens, config.width
    block = tokens * width * (4 * width + 2 * config.mlp_width) + 2 * tokens**2 * width
    patches = (tokens - 1) * 3 * config.patch_size**2 * width
    return 2.0 * (config.num_layers * block + patches)


# --- steps ---


def steps(setup: Setup) -> Iterator[Row]:
    """A whole step, as the engine calls it: with the search, which is Python's; and the prefill before."""
    for name, checkpoint in loaded(setup):
        for rows in setup.scale.rows:
            for beams in (1, 3):
                yield {"model": name, "rows": rows, "beams": beams} | whole_step(checkpoint, rows, beams, setup)


def whole_step(checkpoint: Checkpoint, rows: int, beams: int, setup: Setup) -> Row:
    items = captions(checkpoint, rows, beams)
    try:
        prefill = wall_seconds(lambda: checkpoint.heads.generate(items), setup.device, 3, warm_up=1)
        generation = checkpoint.heads.generate(items)
        times = wall_seconds(generation.step, setup.device, TOKENS - WARM_STEPS - 1, WARM_STEPS)
    except Exception as error:
        return {"failure": first_line(error)}
    step = statistics.median(times)
    return {"prefill ms": statistics.median(prefill) * 1e3, "step ms": step * 1e3, "tokens/s": rows / step}


def captions(checkpoint: Checkpoint, rows: int, beams: int) -> list[Item]:
    """Captions of TOKENS tokens, each about a picture of its own."""
    asked = CaptionInput(settings=GenerationSettings(num_beams=beams, min_new_tokens=TOKENS, max_new_tokens=TOKENS))
    side, runner = checkpoint.preprocessing.image_size, checkpoint.tower
    encoded = [runner.encode([Item(Op.ENCODE, None, torch.randn(3, side, side))])[0] for _ in range(rows)]
    return [replace(checkpoint.heads.prepare(asked), features=features) for features in encoded]


class Trial(NamedTuple):
    name: str
    change: Callable[[Callable[[], Tensor]], Callable[[], object]]


def decoding(setup: Setup) -> Iterator[Row]:
    """The part of a step that is the network's, at fixed shapes, and the same as a CUDA graph: what graphs would
    gain, before anybody writes them into the service."""
    eager = Trial("eager", lambda call: call)
    yield from trials(setup, [eager, Trial("graph", lambda call: captured(call, setup.device))])


def compiled_decoding(setup: Setup) -> Iterator[Row]:
    """The same compiled, and both."""
    compiled: Callable[..., Callable[[], Tensor]] = torch.compile
    yield from trials(
        setup,
        [
            Trial("compiled", lambda call: compiled(call, dynamic=False)),
            Trial("compiled, graph", lambda call: captured(compiled(call, dynamic=False), setup.device)),
        ],
    )


def trials(setup: Setup, variants: Sequence[Trial]) -> Iterator[Row]:
    for name, checkpoint in loaded(setup):
        for rows in setup.scale.rows:
            heads: Any = checkpoint.heads
            with torch.inference_mode():
                step = fixed_step(checkpoint, captions(checkpoint, rows, 1))
                for variant in variants:
                    yield {"model": name, "rows": rows, "step": variant.name} | trial(heads, step, variant, setup)


def trial(heads: Any, step: Step, variant: Trial, setup: Setup) -> Row:
    """Times, and how far its logits are from those of the plain call: a graph's output is where it was captured."""
    kept: list[Tensor] = [torch.empty(0)]

    def decode() -> Tensor:
        logits: Tensor = heads.decode(step)
        return logits

    def keeping(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def keep() -> Tensor:
            kept[0] = call()
            return kept[0]

        return keep

    try:
        expected = decode().clone()
        call = variant.change(keeping(decode))
        wall = statistics.median(wall_seconds(call, setup.device, setup.scale.repeats))
        device = statistics.median(device_seconds(call, setup.device, setup.scale.repeats))
        difference = float((kept[0] - expected).abs().max())
    except Exception as error:
        return {"failure": first_line(error)}
    return {"wall ms": wall * 1e3, "device ms": device * 1e3, "logits differ by": difference}


def fixed_step(checkpoint: Checkpoint, items: Sequence[Item]) -> Step:
    """The first token after the prompt. Asking for it again writes the same entries of the cache."""
    heads: Any = checkpoint.heads
    prompts = [heads.plan(item).prompt for item in items]
    cache = Cache(heads.prefill(items), [1] * len(items))
    return cache.step([[prompt[-1]] for prompt in prompts], [len(prompt) - 1 for prompt in prompts])


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"[:300]


def profile(setup: Setup) -> Iterator[Row]:
    """Where a step's time goes: the operations that take the device longest."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if setup.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    for name, checkpoint in loaded(setup):
        rows = setup.scale.rows[1]
        generation = checkpoint.heads.generate(captions(checkpoint, rows, 1))
        for _ in range(WARM_STEPS):
            generation.step()
        with torch.profiler.profile(activities=activities) as profiler:
            for _ in range(WARM_STEPS):
                generation.step()
        order = "self_device_time_total" if setup.device.type == "cuda" else "self_cpu_time_total"
        found = sorted(profiler.key_averages(), key=lambda one: -getattr(one, order))
        every = sum(getattr(one, order) for one in found)
        for one in found[:12]:
            share = getattr(one, order) / every if every else 0.0
            yield {"model": name, "rows": rows, "operation": one.key[:90], "calls": one.count, "share": share}
