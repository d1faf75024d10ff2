"""Sections: the machine and what it can do at most; and the weights, drawn and written once for the others."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from bench.blip2_checkpoints import write_blip2
from bench.checkpoints import write_blip_base
from bench.cpu import cpu_name
from bench.gpu.peaks import copy_rate, product_rate, sheet_rate
from bench.gpu.setup import Row, Setup
from models.device import DTYPES, free_bytes

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow", "fastapi", "uvicorn", "httpx")
# Of BLIP-2 at full size in half precision: 8.4 GB of weights, as much again while the wrapper copies them, key-value
# caches and activations.
BLIP2_DEVICE_BYTES = 16e9
BLIP2_HOST_BYTES = 12e9


def about(setup: Setup) -> Iterator[Row]:
    """Names and versions first, as they need no device; then rates."""
    yield {"what": "system", "is": f"{platform.platform()}, {cpu_name()}, {os.cpu_count()} CPUs, {setup.threads} used"}
    memory = psutil.virtual_memory()
    yield {"what": "memory", "is": f"{memory.total / 1e9:.0f} GB, {memory.available / 1e9:.0f} available"}
    yield {"what": "Python", "is": platform.python_version()}
    yield {"what": "packages", "is": ", ".join(f"{name} {version(name)}" for name in PACKAGES)}
    yield {"what": "driver", "is": driver()}
    yield {"what": "device", "is": device_name(setup)}
    yield {"what": "CUDA, cuDNN of torch", "is": f"{torch.version.cuda}, {cudnn_version()}"}
    for dtype in DTYPES:
        yield rate_row(dtype, setup)
    rate = copy_rate(setup.scale.copied_bytes, setup.device, setup.scale.repeats)
    yield {"what": "copy on the device, read and written", "is": f"{rate / 1e9:.0f} GB/s", "rate": rate}


def rate_row(dtype: str, setup: Setup) -> Row:
    what, size = f"product, {dtype}", setup.scale.gemm_size
    try:
        rate = product_rate(dtype, size, setup.device, setup.scale.repeats)
    except RuntimeError as error:  # a card without this dtype
        return {"what": what, "is": f"failed: {error}"}
    sheet = sheet_rate(device_name(setup), dtype)
    told = f"{sheet / 1e12:.0f} by the data sheet" if sheet else "no data sheet known"
    return {"what": what, "is": f"{rate / 1e12:.3g} TFLOP/s ({size} cubed; {told})", "rate": rate, "sheet": sheet}


def device_name(setup: Setup) -> str:
    return torch.cuda.get_device_name(setup.device) if setup.device.type == "cuda" else "CPU"


def cudnn_version() -> int | None:
    found: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return found


def driver() -> str:
    """Name, driver and memory of each card, as nvidia-smi tells them."""
    query = "--query-gpu=name,driver_version,memory.total,memory.used,clocks.sm,power.limit"
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi does not tell: {error}"
    return (done.stdout or done.stderr).strip().replace("\n", "; ")


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "-"


def weights(setup: Setup) -> Iterator[Row]:
    """Drawn on the device, which is a hundred times as quick as on a CPU."""
    device = str(setup.device)
    write_blip_base(setup.blip, setup.scale.vision, setup.scale.text, device)
    yield {"model": "BLIP", "is": f"{written_bytes(setup.blip) / 1e9:.2f} GB"}
    if setup.scale.name == "full" and (lack := lacking(setup)):
        yield {"model": "BLIP-2", "failure": lack}
        return
    write_blip2(setup.blip2, setup.scale.kinds, device)
    yield {"model": "BLIP-2", "is": f"{written_bytes(setup.blip2) / 1e9:.2f} GB"}


def lacking(setup: Setup) -> str:
    """Why BLIP-2 at full size cannot be served here; empty: it can."""
    device, host = free_bytes(setup.device), free_bytes(torch.device("cpu"))
    if device < BLIP2_DEVICE_BYTES:
        return f"it needs {BLIP2_DEVICE_BYTES / 1e9:.0f} GB of the device, {device / 1e9:.1f} GB are free"
    if host < BLIP2_HOST_BYTES:
        return f"the wrapper needs {BLIP2_HOST_BYTES / 1e9:.0f} GB of the host, {host / 1e9:.1f} GB are free"
    return ""


def written_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
