"""The network's part of a step at fixed shapes, and the same as a CUDA graph; compiled or not. It tells what graphs and
the compiler would gain, before anybody writes them into the service."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.gpu.setup import Row, Setup, first_line
from bench.gpu.timing import captured, device_seconds, wall_seconds
from models.base import Checkpoint, Item
from models.generation.kv_cache import Cache, Step

Network = Callable[..., Tensor]
Change = Callable[[Network, Setup], Network]


def as_it_is(network: Network, _: Setup) -> Network:
    return network


def compiled(network: Network, setup: Setup) -> Network:
    """On a CPU traced alone, and run as before: the compiler cannot take weights that are packed for oneDNN."""
    torch._dynamo.reset()  # its limit of recompilations is one for all, and past it nothing is compiled
    backend = "inductor" if setup.device.type == "cuda" else "eager"
    changed: Network = torch.compile(network, dynamic=False, backend=backend)
    return changed


@torch.inference_mode()
def decoding(checkpoint: Checkpoint, items: Sequence[Item], how: str, change: Change, setup: Setup) -> list[Row]:
    """Times, and how far logits are from those of the plain call."""
    heads: Any = checkpoint.heads
    step = fixed_step(heads, items)
    rows, kept = list[Row](), list[Tensor]()

    def decode() -> Tensor:
        logits: Tensor = heads.decode(step)
        return logits

    def measure(call: Callable[[], object]) -> Row:
        wall = statistics.median(wall_seconds(call, setup.device, setup.scale.repeats))
        device = statistics.median(device_seconds(call, setup.device, setup.scale.repeats))
        difference = float((kept[0] - expected).abs().max())
        return {"wall ms": wall * 1e3, "device ms": device * 1e3, "logits differ by": difference}

    row: Row = {"rows": len(items), "network": how}
    try:
        expected = decode().clone()
        changed = change(decode, setup)

        def keep() -> None:
            kept[:] = [changed()]  # of a graph: where its replays write

        rows.append(row | measure(keep))
        row["network"] += ", graph"
        rows.append(row | measure(captured(keep, setup.device)))
    except Exception as error:
        rows.append(row | {"failure": first_line(error)})
    return rows


def fixed_step(heads: Any, items: Sequence[Item]) -> Step:
    """The first token after the prompt. Asking for it again writes the same entries of the cache."""
    prompts = [heads.plan(item).prompt for item in items]
    cache = Cache(heads.prefill(items), [1] * len(items))
    return cache.step([[prompt[-1]] for prompt in prompts], [len(prompt) - 1 for prompt in prompts])
