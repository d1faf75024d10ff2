"""What the card can do: by its maker's data sheets, and as a large matrix product and a large copy measure it."""

from __future__ import annotations

import statistics

import torch

from bench.gpu.timing import device_seconds
from models.device import DTYPES

TERA = 1e12
# Dense operations a second, in TFLOP/s: (half precision with float32 sums, float32 without TF32), by a part of the
# name that the driver gives the card. The longest part that fits counts.
SHEETS = {
    "B200": (2250.0, 75.0),
    "H200": (989.0, 67.0),
    "H100": (989.0, 67.0),
    "H100 PCIe": (756.0, 51.0),
    "H100 NVL": (835.0, 60.0),
    "A100": (312.0, 19.5),
    "A10": (125.0, 31.2),
    "A10G": (70.0, 31.5),
    "L40S": (362.0, 91.6),
    "L4": (121.0, 30.3),
    "T4": (65.0, 8.1),
    "V100": (125.0, 15.7),
    "RTX 4090": (165.2, 82.6),
    "RTX 3090": (71.0, 35.6),
}


def sheet_rate(name: str, dtype: str) -> float | None:
    """Operations a second by the data sheet of the card with this name; None: it is not known here."""
    fitting = [part for part in SHEETS if part in name]
    if not fitting:
        return None
    half, single = SHEETS[max(fitting, key=len)]
    return TERA * (single if dtype == "fp32" else half)


def product_rate(dtype: str, size: int, device: torch.device, repeats: int) -> float:
    """Operations (multiplications and additions) a second of multiplying two square matrices of random numbers: zeros
    take less power, and so run faster."""
    one, other = (torch.randn(size, size, device=device, dtype=DTYPES[dtype]) for _ in range(2))
    result = torch.empty_like(one)
    seconds = device_seconds(lambda: torch.mm(one, other, out=result), device, repeats)
    return 2 * size**3 / statistics.median(seconds)


def copy_rate(num_bytes: int, device: torch.device, repeats: int) -> float:
    """Bytes a second that a copy on the device reads and writes, both counted."""
    source = torch.randint(0, 255, (num_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / statistics.median(device_seconds(lambda: target.copy_(source), device, repeats))
