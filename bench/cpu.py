"""What a run tells about the CPU."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from app.settings import default_threads
from models.device import Instructions, instructions, torch_vectors


def cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.processor()


def features(vectors: str, has: Instructions) -> str:
    """What decides how fast products are, and what is not there of it: "AVX512, bf16, VNNI"."""
    return ", ".join((vectors, "bf16" if has.bf16 else "no bf16", "VNNI" if has.vnni else "no VNNI"))


def about() -> str:
    found = features(torch_vectors(), instructions())
    return f"{cpu_name()}, {os.cpu_count()} CPUs ({found}), {default_threads()} threads, torch {torch.__version__}"


def is_wide() -> bool:
    """Whether it has AVX-512 and VNNI: products in int8 are then some four times as fast as in fp32, else twice."""
    return torch_vectors().startswith("AVX512") and instructions().vnni
