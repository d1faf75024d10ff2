"""How long the device takes: events on CUDA, a clock elsewhere; always after a warm-up, and never without waiting for
the device."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

WARM_UP = 3
Call = Callable[[], object]


def device_seconds(call: Call, device: torch.device, repeats: int) -> list[float]:
    """Of each of several calls, one after the other without waiting between them: by CUDA's events."""
    if device.type != "cuda":
        return wall_seconds(call, device, repeats)
    for _ in range(WARM_UP):
        call()
    pairs = [(event(), event()) for _ in range(repeats)]
    torch.cuda.synchronize(device)
    for start, end in pairs:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize(device)
    return [start.elapsed_time(end) / 1e3 for start, end in pairs]


def event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def wall_seconds(call: Call, device: torch.device, repeats: int, warm_up: int = WARM_UP) -> list[float]:
    """Of each of several calls, with Python's part of it: the device has nothing left to do before and after each."""
    for _ in range(warm_up):
        call()
    taken = []
    for _ in range(repeats):
        synchronize(device)
        started = time.perf_counter()
        call()
        synchronize(device)
        taken.append(time.perf_counter() - started)
    return taken


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def captured(call: Call, device: torch.device) -> Call:
    """The call as a CUDA graph: whoever calls the result replays its kernels, on the same tensors. Elsewhere there are
    no graphs, and it is the call itself. Raises what CUDA does if it cannot be captured."""
    if device.type != "cuda":
        return call
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):  # what libraries set up in the first calls must not be captured
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
