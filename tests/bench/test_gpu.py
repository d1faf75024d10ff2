"""`make prove-gpu`, but for the measuring: that is run by itself, dry, on any machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.gpu import __main__ as prove
from bench.gpu import needs, timing
from bench.gpu.peaks import sheet_rate
from bench.gpu.report import render
from bench.gpu.section import MEASURES, rows_file
from bench.gpu.speed import tower_flop
from models.layers.vit import ViTConfig

ROW = {"model": "BLIP", "rows": 16, "step ms": 2.5}
SECTIONS = [
    {"name": "speed", "seconds": 9.0, "rows": [ROW, ROW | {"rows": 64}, {"tower": "as it is"}], "failure": ""},
    {"name": "tests", "seconds": 1.0, "rows": [{"tests": "x", "failure": "1 failed"}], "failure": ""},
    {"name": "compiled", "seconds": 5.0, "rows": [ROW], "failure": "it was stopped after 5 s\nlast line"},
]


def test_every_section_has_its_place_and_title() -> None:
    planned = [name for group in prove.GROUPS for name in group]
    assert sorted(planned) == sorted(MEASURES)
    content = {"scale": "full", "seconds": 1, "sections": [{"name": name, **EMPTY} for name in planned]}
    assert render(content).count("\n## ") == len(planned) + 1


EMPTY: dict[str, Any] = {"seconds": 0.0, "rows": [], "failure": ""}


def test_the_report_tells_what_ran_and_what_failed() -> None:
    report = render({"scale": "full", "seconds": 15.0, "sections": SECTIONS})
    assert "dry" not in report
    for part in (
        "| Towers and steps | 9.00 | ran |",
        "**1 of 1 failed**",
        "**it was stopped after 5 s**",
        "| BLIP | 64 | 2.50 |",
        "tests x failed:\n\n```text\n1 failed\n```",
        "last line",
    ):
        assert part in report
    assert report.count("| model | rows | step ms |") == 2


def test_a_dry_run_says_so() -> None:
    assert "A dry run on the CPU" in render({"scale": "dry", "seconds": 1.0, "sections": []})


# --- the conductor ---


@pytest.fixture
def sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs a line of Python in place of a section: its name."""
    popen = subprocess.Popen

    def begin(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return popen([sys.executable, "-c", command[3]], **options)

    for part in ("rows", "logs"):
        (tmp_path / part).mkdir()
    monkeypatch.setattr(subprocess, "Popen", begin)
    return tmp_path


def test_a_section_that_fails_leaves_its_rows_and_the_end_of_its_log(sections: Path) -> None:
    name = "print('why'); raise SystemExit(3)"
    rows_file(sections, name).write_text(json.dumps(ROW) + "\n")
    found = prove.run_section(name, "dry", sections, 60)
    assert (found.rows, found.failure) == ([ROW], "it ended with status 3\nwhy")
    assert prove.is_broken(found)


def test_a_section_that_does_not_end_is_stopped(sections: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(prove, "LEAST_SECONDS", 0)
        found = prove.run_section("import signal; signal.pause()", "dry", sections, 0.1)
    assert found.failure.startswith("it was stopped after 0 s")


def test_no_section_is_begun_without_time(sections: Path) -> None:
    (found,) = prove.run_group({"print(1)": 60.0}, "dry", sections, left=1)
    assert found.failure == "not begun: no time was left"


def test_one_that_ran_is_not_broken(sections: Path) -> None:
    (found,) = prove.run_group({"print(1)": 60.0}, "dry", sections, left=60)
    assert not prove.is_broken(found)


def test_who_stops_it_stops_its_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    monkeypatch.setattr(prove, "RUNNING", {process})
    prove.stop(signal.SIGTERM, None)
    assert exits == [128 + signal.SIGTERM]
    assert process.poll() == -signal.SIGTERM


def test_a_dry_run_measures_side_by_side_what_needs_no_weights_first() -> None:
    first, second = prove.side_by_side(prove.GROUPS)
    assert "weights" in first
    assert {"BLIP over HTTP", "speed", "compiled"} <= set(second)


# --- figures ---


@pytest.mark.parametrize(
    ("name", "dtype", "rate"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA A10G", "fp32", 31.5e12),
        ("NVIDIA L4", "fp16", 121e12),
        ("CPU", "bf16", None),
    ],
)
def test_data_sheets(name: str, dtype: str, rate: float | None) -> None:
    assert sheet_rate(name, dtype) == rate


def test_operations_of_a_tower() -> None:
    assert tower_flop(ViTConfig(384, 16, 768, 12, 12, 3072, 1e-6)) == pytest.approx(111e9, rel=0.01)


def test_on_cuda_times_are_of_events_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    event = SimpleNamespace(record=lambda: said.append("event"), elapsed_time=lambda _: 2.0)
    monkeypatch.setattr(timing, "event", lambda: event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: said.append("wait"))
    seconds = timing.device_seconds(lambda: said.append("call"), torch.device("cuda"), 2)
    assert seconds == [0.002, 0.002]
    assert said == ["call"] * 3 + ["wait"] + ["event", "call", "event"] * 2 + ["wait"]


def test_what_a_python_needs_is_told_without_importing_it(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert {"torch", "fastapi", "uvloop", "pytest"} <= set(needs.needed())
    monkeypatch.setattr(needs, "is_here", lambda package: package != "fastapi")
    monkeypatch.setattr(sys, "argv", ["needs"])
    assert needs.main() == 1
    assert "lacks fastapi\n" in capsys.readouterr().out
    monkeypatch.setattr(needs, "is_here", lambda _: True)
    assert needs.main() == 0
