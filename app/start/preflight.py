"""What can be told of the device before torch is imported, which takes seconds."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

AMD = Path("/dev/kfd")  # whose GPUs torch calls cuda too


class PreflightError(RuntimeError):
    """The message is one line for the operator."""


def check_device(device: str, gpus: Path = Path("/proc/driver/nvidia/gpus")) -> None:
    """A quick no to what is missing for sure; of the rest the loader asks torch. Raises PreflightError."""
    kind, _, number = device.partition(":")
    if kind == "mps" and sys.platform != "darwin":
        raise PreflightError("there is no device mps: that is a Mac's")
    if kind != "cuda" or sys.platform != "linux":
        return
    if not AMD.exists() and not _loads("libcuda.so.1"):
        raise PreflightError(f"there is no device {device}: this machine has no GPU driver (libcuda.so.1)")
    count = len(list(gpus.iterdir())) if gpus.is_dir() else None
    if number and count is not None and int(number) >= count:
        raise PreflightError(f"there is no device {device}: this machine has {count}, from cuda:0 on")


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
