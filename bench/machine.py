"""The machine's own limit, and how near the tower comes to it, ours and those of peers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from app.settings import default_threads
from bench.peers.towers import Tower, towers
from models.device import DTYPES, INT8, choose_dtype
from models.layers.kernels import AUTOMATIC, Shape
from models.layers.linear import Int8Linear, PackedLinear, with_products
from models.layers.precision import serving_dtype
from models.layers.vit import ViT, ViTConfig

GEMM_SIZE, TRIAL_SIZE = 2048, 256
EMULATED_SHARE = 0.05  # of the fp32 rate: a dtype that is slower than this is emulated in software
TOWER_FLOP = 110e9  # of one image at 384 pixels
BATCHES = (1, 4, 8)
DTYPES_MEASURED = ("fp32", "bf16", INT8)
TICKS = len(DTYPES_MEASURED)
VIT_BASE = ViTConfig(384, 16, 768, 12, 12, 3072, 1e-6)


@dataclass(slots=True)
class Limit:
    dtype: str
    gemm: list[float] = field(default_factory=list)  # operations per second
    note: str = ""
    # The share of the GEMM beside it, by "batch" or "batch, compiled"; of peers by "batch, NAME".
    tower: dict[str, list[float]] = field(default_factory=dict)
    peers: dict[str, list[float]] = field(default_factory=dict)


def gemm_rate(dtype: str, size: int) -> float:
    """The rate of multiplying square matrices, in operations (multiplications and additions) per second."""
    if dtype == INT8:
        layer = Int8Linear(size, size, bias=False)
        layer.shape = Shape.TOWER
        layer.pack(AUTOMATIC)
        levels = layer.quantized(torch.randn(size, size)).levels
        seconds = seconds_of(lambda: layer.product(levels))
    else:
        values = torch.randn(size, size).to(DTYPES[dtype])
        seconds = seconds_of(lambda: values @ values)
    return 2 * size**3 / seconds


def seconds_of(call: Callable[[], object], times: int = 3) -> float:
    """The best of several runs: what the machine can do."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return min(taken)


def measure(rounds: int, compiled: bool, tick: Callable[[], object]) -> list[Limit]:
    torch.set_num_threads(default_threads())
    limits = [Limit(dtype) for dtype in DTYPES_MEASURED]
    fp32_rate = gemm_rate("fp32", GEMM_SIZE)
    for limit in limits:
        _try(limit, fp32_rate)
        if not limit.note:
            _towers(limit, rounds, compiled and limit.dtype != INT8)
        tick()
    return limits


def _try(limit: Limit, fp32_rate: float) -> None:
    """At a small size first, as an emulated dtype would take minutes."""
    try:
        rate = gemm_rate(limit.dtype, TRIAL_SIZE)
    except (RuntimeError, NotImplementedError) as error:
        limit.note = f"not supported: {error}"
        return
    if rate < EMULATED_SHARE * fp32_rate:
        limit.note, limit.gemm = f"emulated, {TRIAL_SIZE} cubed", [rate]


def _towers(limit: Limit, rounds: int, compiled: bool) -> None:
    """One at a time, each beside a GEMM, which tells when the machine gets slower."""
    _shares(limit, limit.tower, "", lambda: _tower(limit.dtype).apply(AUTOMATIC.pack), rounds)
    if compiled:
        _shares(limit, limit.tower, ", compiled", lambda: torch.compile(_tower(limit.dtype), dynamic=False), rounds)
    for name, make in towers(VIT_BASE, limit.dtype):
        _shares(limit, limit.peers, f", {name}", make, rounds)


def _shares(limit: Limit, shares: dict[str, list[float]], name: str, make: Callable[[], Tower], rounds: int) -> None:
    with torch.inference_mode():
        try:
            tower = make()
            for batch in BATCHES:
                tower(torch.randn(batch, 3, 384, 384))  # warms up, compiles
        except Exception as error:
            shares[f"not{name}: {next(iter(str(error).splitlines()), type(error).__name__)}"] = []
            return
        for _ in range(rounds):
            for batch in BATCHES:
                rate = gemm_rate(limit.dtype, GEMM_SIZE)
                pixels = torch.randn(batch, 3, 384, 384)
                seconds = seconds_of(lambda: tower(pixels), times=1)  # noqa: B023
                limit.gemm.append(rate)
                shares.setdefault(f"{batch}{name}", []).append(TOWER_FLOP * batch / seconds / rate)


def _tower(dtype: str) -> ViT:
    torch.manual_seed(0)
    vit = ViT(VIT_BASE).eval()
    serving_dtype(vit, choose_dtype(dtype, torch.device("cpu")))
    return with_products(vit, Int8Linear if dtype == INT8 else PackedLinear, Shape.TOWER)
