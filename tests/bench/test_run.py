"""The course of a run: its order, what fails, and its end by a signal. Without servers."""

from __future__ import annotations

import itertools
import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bench.contenders
import bench.run
from bench import answers, machine, overhead, sections
from bench.client import Turn
from bench.contenders import Contender, Stage, contenders
from bench.record import Record
from bench.run import Run
from bench.scale import TINY
from bench.workloads import CAPTIONS

ALL, _ = contenders("bf16")


class Hall:
    """Which servers are there, and what was measured of whom."""

    def __init__(self) -> None:
        self.there: list[str] = []
        self.cells: list[tuple[str, str, int]] = []  # measured: workload, contender, clients
        self.never_starts = ""
        self.signal_at: str | None = None

    @property
    def measured(self) -> list[str]:
        return [contender for _, contender, _ in self.cells]

    @contextmanager
    def serving(self, contender: Contender, _: Path) -> Iterator[Any]:
        self.there.append(contender.key)
        if contender.key == self.never_starts:
            self.there.pop()
            raise RuntimeError("it did not start")
        try:
            yield SimpleNamespace(contender=contender, pid=0, start_seconds=1.0)
        finally:
            self.there.remove(contender.key)

    def measure(self, cell: Any, server: Any, *_: Any) -> bool:
        assert self.there == [cell.contender] == [server.contender.key]
        self.cells.append(cell.key)
        cell.add(Turn([1.0], 1.0, 1))
        if cell.contender == self.signal_at:
            signal.raise_signal(signal.SIGTERM)
        return True


@pytest.fixture
def hall(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hall]:
    hall = Hall()
    monkeypatch.setattr(bench.contenders, "serving", hall.serving)
    monkeypatch.setattr(bench.contenders, "peak_bytes", lambda _: 10)
    monkeypatch.setattr(bench.run, "measure", hall.measure)
    monkeypatch.setattr(bench.run, "make_pictures", lambda *_, **__: [])
    monkeypatch.setattr(bench.run, "weight_bytes", lambda *_: 5)
    monkeypatch.setattr(answers, "measure", lambda *_: iter([{"dtype": "fp32", "failure": "not there"}]))
    monkeypatch.setattr(machine, "measure", lambda *_: None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield hall
    for number, handler in handlers.items():
        signal.signal(number, handler)


async def section(needs: Any) -> str:
    return needs.server.contender.key


async def broken(_: Any) -> None:
    raise ValueError("broken")


def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    monkeypatch.setattr(sections, "SECTIONS", {"arrival": broken, "other": section})
    units = dict.fromkeys(TINY.workloads, "x/s")
    record = Record(folder, {"quick": True, "is_wide": True, "about": "a machine", "units": units})
    bar: Any = SimpleNamespace(reset=bool, update=bool, set_description=bool)
    with Stage(folder) as stage:
        Run(replace(TINY, seconds=0), ALL, stage, record, bar).all()
    return record


def test_ours_come_first_and_what_fails_stops_nothing(
    hall: Hall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: int) -> None:
        raise OSError("lost")

    monkeypatch.setattr(overhead, "measure", lost)
    record = run(tmp_path, monkeypatch)
    assert [key for key, _ in itertools.groupby(hall.measured)] == list("fedabcbadef")
    twice = {*itertools.product(TINY.workloads, "abcdef", (1,)), *itertools.product(CAPTIONS, "cdef", (16,))}
    assert {key for key, number in Counter(hall.cells).items() if number == 2} == twice
    of_a = [workload for workload, contender, _ in hall.cells if contender == "a"]
    assert of_a == [*TINY.workloads, *reversed(TINY.workloads)]
    assert hall.there == []
    assert record.failures == ["arrival", "overhead"]
    assert record.results["other"] == "f"  # the first of those that are equally fast
    assert [row["key"] for row in record.results["contenders"]] == list("abcdef")
    assert json.loads((tmp_path / "results.json").read_text())["ended"] is True


def test_who_does_not_start_is_told_once(hall: Hall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hall.never_starts = "c"
    monkeypatch.setattr(overhead, "measure", lambda _: ([["head"]], {"requests_per_second": {}}))
    record = run(tmp_path, monkeypatch)
    assert record.results["left_out"] == {"c": "it did not start"}
    assert "c" not in hall.measured
    assert "(c) is left out: it did not start" in (tmp_path / "table.md").read_text()


def test_a_signal_ends_the_servers_and_leaves_what_was_measured(
    hall: Hall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall.signal_at = "e"
    bench.run.end_on_signals()
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, monkeypatch)
    assert ended.value.code == 128 + signal.SIGTERM
    assert hall.there == []
    results = json.loads((tmp_path / "results.json").read_text())
    assert {cell["contender"] for cell in results["cells"]} == {"f", "e"}
    assert [row["key"] for row in results["contenders"]] == ["e", "f"]
