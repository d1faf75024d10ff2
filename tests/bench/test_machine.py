"""The towers' rows: those that were done are kept, however their process ends."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import IO, Any

import pytest

from bench import machine
from bench.machine import Effort, image_seconds, row, shares

EFFORT = Effort((1,), 1, 1.0, compiled=False)


@pytest.mark.parametrize(
    "error", [subprocess.TimeoutExpired("", 1.0), subprocess.CalledProcessError(-11, ""), SystemExit]
)
def test_rows_that_were_done_are_kept(monkeypatch: pytest.MonkeyPatch, error: Any) -> None:
    def run(_: object, *, stdout: IO[bytes], **__: object) -> None:
        stdout.write(json.dumps({"dtype": "fp32"}).encode() + b"\n")
        raise error

    monkeypatch.setattr(subprocess, "run", run)
    found: list[machine.Row] = []
    with pytest.raises(BaseException) as raised:  # noqa: PT011
        machine.measure(Path("folder"), EFFORT, found)
    assert isinstance(raised.value, error if isinstance(error, type) else type(error))
    assert found == [{"dtype": "fp32"}]


def test_a_tower_that_cannot_be_made_is_a_note() -> None:
    def make() -> Any:
        raise ImportError("no such runtime")

    assert row("fp32", "OpenVINO", make, EFFORT, 0.0)["note"] == "no such runtime"


def test_shares_are_of_the_product_beside() -> None:
    found = {"seconds": {"4": [0.5, 1.0]}, "gemm": {"4": [4.4e11, 1.1e11]}}
    assert image_seconds(found) == {"4": 0.75}
    assert shares(found) == {"4": 0.75}
