"""The CPU, as a run names it."""

from __future__ import annotations

import pytest
import torch

from bench import cpu
from models.device import Instructions


@pytest.mark.parametrize(
    ("vectors", "bf16", "vnni", "text", "is_wide"),
    [
        ("AVX512", True, True, "AVX512, bf16, VNNI", True),
        ("AVX512", False, False, "AVX512, no bf16, no VNNI", False),
        ("AVX2", False, True, "AVX2, no bf16, VNNI", False),
    ],
)
def test_what_decides_how_fast_it_is_is_named(
    monkeypatch: pytest.MonkeyPatch, vectors: str, bf16: bool, vnni: bool, text: str, is_wide: bool
) -> None:
    monkeypatch.setattr(cpu, "torch_vectors", lambda: vectors)
    monkeypatch.setattr(cpu, "instructions", lambda: Instructions(frozenset({torch.float32}), bf16, vnni))
    assert text in cpu.about()
    assert cpu.is_wide() is is_wide
