"""The device: which one, in which dtype, how much memory is free, and how it is called."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import psutil
import torch
from torch import Tensor

from models.base import DeviceLostError

P = ParamSpec("P")
T = TypeVar("T")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h, in bytes
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
INT8 = "int8"  # of weights and activations in the big products; between them, activations are as `auto` has them

BF16_UNITS = frozenset({"avx512_bf16", "bf16"})  # of x86, of ARM; oneDNN takes AMX's only beside the first
FP16_UNITS = frozenset({"avx512_fp16", "amx_fp16", "fp16_arith"})  # of x86, of ARM
VNNI_UNITS = frozenset({"avx512_vnni", "avx_vnni"})
# What oneDNN still uses of them under a limit of this name; under any other, as under none, all of them.
UNITS_UNDER_LIMIT: dict[str, frozenset[str]] = {
    "sse41": frozenset(),
    "avx": frozenset(),
    "avx2": frozenset(),
    "avx2_vnni": frozenset({"avx_vnni"}),
    "avx2_vnni_2": frozenset({"avx_vnni"}),
    "avx512_core": frozenset(),
    "avx512_core_vnni": frozenset({"avx512_vnni"}),
    "avx512_core_bf16": frozenset({"avx512_vnni", "avx512_bf16"}),
}


class DeviceError(RuntimeError):
    """The device that was asked for is not there; the message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Instructions:
    """What the CPU has for matrix products, as torch and oneDNN may use it."""

    packed: frozenset[torch.dtype]  # in which oneDNN takes packed weights
    bf16: bool  # products in bf16 are its own; where they are emulated, they take longer than in fp32
    vnni: bool  # products in int8 are added in 32 bits; without it, on x86, two of them in 16


def choose_device(name: str) -> torch.device:
    """`auto`: CUDA if there, else MPS, else the CPU. Raises DeviceError."""
    if name != "auto":
        _check_device(torch.device(name))
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


def _check_device(device: torch.device) -> None:
    """Raises DeviceError if this machine, or this build of torch, does not have it."""
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("there is no device mps: that is a Mac's")
    if device.type != "cuda":
        return
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        raise DeviceError(f"there is no device {device}: this torch was built for CPUs; install the build for CUDA")
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise DeviceError(f"there is no device {device}: torch sees {count}")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto`: half precision where the device computes in it, else fp32. So are activations between int8 products."""
    if name not in ("auto", INT8):
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and instructions().bf16 else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    return next(name for name, value in DTYPES.items() if value is dtype)


def has_onednn() -> bool:
    """Whether this build of torch has oneDNN, for a CPU's matrix products."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def instructions() -> Instructions:
    """torch lists what the CPU has, whatever limit is set. oneDNN tells which dtypes it takes under its own limit, but
    not which of them it emulates, nor how it adds: for that, its variables are read as it reads them."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    units = {unit for unit, there in torch.cpu.get_capabilities().items() if there is True}
    units &= UNITS_UNDER_LIMIT.get(limit.lower(), BF16_UNITS | VNNI_UNITS)
    if not torch_vectors().startswith("AVX512"):
        units.discard("avx512_bf16")
    packed = packed_dtypes()
    bf16 = torch.bfloat16 in packed and not units.isdisjoint(BF16_UNITS)
    return Instructions(packed, bf16, vnni=not units.isdisjoint(VNNI_UNITS))


def computes_in_fp16() -> bool:
    """Whether the CPU has products in fp16 of its own. oneDNN takes AMX's only where it takes the others."""
    units = {unit for unit, there in torch.cpu.get_capabilities().items() if there is True}
    return torch.float16 in packed_dtypes() and not units.isdisjoint(FP16_UNITS)


def torch_vectors() -> str:
    """The instructions of torch's own kernels, as ATEN_CPU_CAPABILITY limits them: DEFAULT, AVX2, AVX512, SVE256."""
    return torch.backends.cpu.get_cpu_capability()


def packed_dtypes() -> frozenset[torch.dtype]:
    """Those in which oneDNN takes packed weights here."""
    if not has_onednn():
        return frozenset()
    has = {
        torch.float32: True,
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported(),
    }
    return frozenset(dtype for dtype, there in has.items() if there)


def free_bytes(device: torch.device, cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Free memory of a CUDA device; else of the host, or of the container if that has less."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available: int = psutil.virtual_memory().available
    limit = cgroup / "memory.max"
    if limit.is_file() and (text := limit.read_text().strip()) != "max":
        # The page cache of files just read counts as used, but leaves when memory is needed.
        files = re.search(r"^inactive_file (\d+)$", (cgroup / "memory.stat").read_text(), re.MULTILINE)
        used = int((cgroup / "memory.current").read_text()) - (int(files[1]) if files else 0)
        available = min(available, int(text) - used)
    return available


@contextmanager
def tensors_apart() -> Iterator[None]:
    """While weights are loaded: each tensor in a mapping of its own. On the heap, temporary ones would leave holes
    between those that stay, which glibc does not give back; with another C library, nothing is changed."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        yield
        return
    mallopt(M_MMAP_THRESHOLD, 2**20)
    try:
        yield
    finally:  # what glibc comes to by itself, after a while
        mallopt(M_MMAP_THRESHOLD, 2**25)
        mallopt(M_TRIM_THRESHOLD, 2**26)


def give_back_holes() -> None:
    """Free pages in the middle of the heap, which glibc keeps otherwise. With another C library, nothing is done."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def on_device(function: Callable[P, T]) -> Callable[P, T]:
    """For what runs on the device thread: without gradients. Raises DeviceLostError where no later call can succeed,
    as after a device-side assert; running out of memory is not that."""
    return _on_device(function, torch.inference_mode)


def on_device_with_gradients(function: Callable[P, T]) -> Callable[P, T]:
    """The same, for what is differentiated. What was made in inference mode, such as features, is to be copied first:
    it cannot be saved for a gradient."""
    return _on_device(function, torch.enable_grad)


def _on_device(
    function: Callable[P, T], mode: Callable[[], torch.inference_mode | torch.enable_grad]
) -> Callable[P, T]:
    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with mode():
                return function(*args, **kwargs)
        except torch.AcceleratorError as error:
            if "out of memory" in str(error):  # outside of the caching allocator, as for pinned memory
                raise torch.OutOfMemoryError(str(error)) from error
            raise DeviceLostError(str(error)) from error

    return call


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy that does not stop the device: on CUDA from pinned memory, without waiting."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
