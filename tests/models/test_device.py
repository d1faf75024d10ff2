"""How the device is called."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from models import device
from models.base import DeviceLostError
from models.device import (
    INT8,
    DeviceError,
    Instructions,
    choose_device,
    choose_dtype,
    free_bytes,
    instructions,
    on_device,
    packed_dtypes,
    tensors_apart,
)

ZEN5 = ("avx2", "avx_vnni", "avx512_vnni", "avx512_bf16")
ICE_LAKE = ("avx2", "avx512_vnni")
ALDER_LAKE = ("avx2", "avx_vnni")


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


@pytest.mark.parametrize(
    ("name", "built", "told"),
    [
        ("cuda", False, "no device cuda: this torch was built for CPUs"),
        ("cuda", True, "no device cuda: torch sees 0"),
        ("cuda:7", True, "no device cuda:7: torch sees 0"),
        ("mps", True, "no device mps"),
    ],
)
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, name: str, built: bool, told: str) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=told):
        choose_device(name)


@pytest.mark.parametrize("bf16", [True, False])
def test_auto_is_half_precision_only_where_the_cpu_computes_in_it(cpu_with: Callable[..., None], bf16: bool) -> None:
    cpu_with(torch.float32, torch.bfloat16, bf16=bf16)
    for name in ("auto", INT8):
        assert choose_dtype(name, torch.device("cpu")) is (torch.bfloat16 if bf16 else torch.float32)
    assert choose_dtype("auto", torch.device("mps")) is torch.float32


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_a_named_dtype_is_taken_as_it_is(cpu_with: Callable[..., None], name: str, dtype: torch.dtype) -> None:
    cpu_with()
    assert choose_dtype(name, torch.device("cpu")) is dtype


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What torch and oneDNN tell, of another machine."""
    for variable in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(variable, raising=False)

    def become(units: tuple[str, ...], vectors: str = "AVX512", *packed: torch.dtype) -> None:
        listed = dict.fromkeys(units, True) | {"amx_int8": False, "l2_cache_size": 2**20, "cpu_name": "bf16"}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: listed)
        monkeypatch.setattr(device, "torch_vectors", lambda: vectors)
        monkeypatch.setattr(device, "packed_dtypes", lambda: frozenset(packed or {torch.float32, torch.bfloat16}))

    return become


CPUS = [
    (ZEN5, "AVX512", True, True),
    (ZEN5, "AVX2", False, True),  # by ATEN_CPU_CAPABILITY
    (ZEN5, "DEFAULT", False, True),
    (ICE_LAKE, "AVX512", False, True),
    (ALDER_LAKE, "AVX2", False, True),
    (("avx2",), "AVX2", False, False),
    (("neon", "bf16"), "SVE256", True, False),
    (("neon",), "DEFAULT", False, False),
    ((), "DEFAULT", False, False),
]


@pytest.mark.parametrize(("units", "vectors", "bf16", "vnni"), CPUS)
def test_what_a_cpu_has(
    machine: Callable[..., None], units: tuple[str, ...], vectors: str, bf16: bool, vnni: bool
) -> None:
    machine(units, vectors)
    assert instructions() == Instructions(frozenset({torch.float32, torch.bfloat16}), bf16, vnni)


def test_bf16_is_not_fast_where_onednn_does_not_take_it(machine: Callable[..., None]) -> None:
    machine(("neon", "bf16"), "DEFAULT", torch.float32)
    assert not instructions().bf16


LIMITS = [
    (ZEN5, "SSE41", False, False),
    (ZEN5, "AVX2", False, False),
    (ZEN5, "avx2", False, False),
    (ZEN5, "AVX2_VNNI", False, True),
    (ZEN5, "AVX2_VNNI_2", False, True),
    (ZEN5, "AVX512_CORE", False, False),
    (ZEN5, "AVX512_CORE_VNNI", False, True),
    (ZEN5, "AVX512_CORE_BF16", True, True),
    (ZEN5, "AVX512_CORE_FP16", True, True),
    (ZEN5, "AVX10_1_512_AMX", True, True),
    (ZEN5, "DEFAULT", True, True),
    (ZEN5, "ALL", True, True),
    (ZEN5, "nonsense", True, True),  # oneDNN ignores it
    (ICE_LAKE, "AVX2_VNNI", False, False),  # which is another unit
    (ALDER_LAKE, "AVX2_VNNI", False, True),
    (ALDER_LAKE, "AVX512_CORE_VNNI", False, False),
]


@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize(("units", "limit", "bf16", "vnni"), LIMITS)
def test_what_a_limit_of_onednn_leaves(
    machine: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    units: tuple[str, ...],
    limit: str,
    bf16: bool,
    vnni: bool,
) -> None:
    machine(units)
    monkeypatch.setenv(variable, limit)
    assert (instructions().bf16, instructions().vnni) == (bf16, vnni)


def test_of_both_names_of_the_limit_the_newer_counts(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(ZEN5)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX2")
    for newer, vnni in (("ALL", True), ("", False)):  # as if not set
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", newer)
        assert instructions().vnni is vnni


def test_without_onednn_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "has_onednn", lambda: False)
    assert packed_dtypes() == frozenset()


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
