"""How the device is called."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
import torch

from models.base import DeviceLostError
from models.device import choose_device, free_bytes, on_device, tensors_apart


@on_device
def call(error: Exception | None = None) -> bool:
    if error is not None:
        raise error
    return torch.is_inference_mode_enabled()


def test_without_gradients() -> None:
    assert call()


def test_an_error_that_stays_is_a_lost_device() -> None:
    with pytest.raises(DeviceLostError, match="device-side assert"):
        call(torch.AcceleratorError("CUDA error: device-side assert triggered"))


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_running_out_of_memory_is_not(kind: type[Exception]) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        call(kind("CUDA error: out of memory"))


@pytest.mark.parametrize(("limit", "expected"), [("1000", 1000 - 700 + 300), ("max", None)])
def test_free_memory_is_that_of_the_container(tmp_path: Path, limit: str, expected: int | None) -> None:
    """Files that were just read count as used, but are in nobody's way."""
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 400\ninactive_file 300\n")
    free = free_bytes(torch.device("cpu"), tmp_path)
    assert free == expected if expected is not None else free > 1_000_000


def test_a_named_device_is_taken_as_it_is() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the resident memory from /proc")
def test_temporary_tensors_leave_no_holes_between_those_that_stay() -> None:
    process, kept, megabyte = psutil.Process(), [], 2**20
    before = process.memory_info().rss
    with tensors_apart():
        for _ in range(16):
            temporary = torch.ones(2 * megabyte)  # of 4 bytes
            kept.append(temporary[: megabyte // 2].clone())
    del temporary
    assert process.memory_info().rss - before < 1.25 * sum(tensor.nbytes for tensor in kept)
