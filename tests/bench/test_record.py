"""What a run writes, however it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.client import Turn
from bench.record import Record

GREEDY = "caption, greedy"


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(
        tmp_path / "results", {"quick": True, "is_wide": True, "about": "a machine", "units": {GREEDY: "x/s"}}
    )


def written(record: Record) -> tuple[dict[str, Any], str]:
    return json.loads((record.folder / "results.json").read_text()), (record.folder / "table.md").read_text()


def test_a_part_that_fails_is_told_and_the_next_one_runs(record: Record) -> None:
    with record.part("first"):
        record.matrix.cell(GREEDY, "a", 1).seconds.append(1.5)
        raise ValueError("broken")
    with record.part("second"):
        record.results["growth"] = [
            {"clients": 1, "requests": 1, "rate": 1.0, "p50": 1.0, "resident_bytes": 1e9},
        ]
    results, table = written(record)
    assert results["failures"] == {"first": "ValueError('broken')"}
    assert results["cells"][0]["seconds"] == [1.5]
    assert "failed: ValueError('broken')" in table
    assert "## Growth" in table
    assert (record.folder / "growth.png").is_file()
    assert record.failures == ["first"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_part_leaves_what_it_had(record: Record, kind: type[BaseException]) -> None:
    def interrupted() -> None:
        with record.part("first"):
            record.matrix.cell(GREEDY, "d", 16).add(Turn([2.0], 2.0, 1))
            raise kind

    with pytest.raises(kind):
        interrupted()
    results, table = written(record)
    assert results["ended"] is False
    assert "| (d) | 16 | 1 | 0.500 |" in table
    assert "did not come to its end" in table


def test_figures_are_written_even_if_they_cannot_be_told(record: Record) -> None:
    record.results["growth"] = [{"clients": 1}]
    record.write()
    results, table = written(record)
    assert results["growth"] == [{"clients": 1}]
    assert "report" in results["failures"]
    assert "KeyError" in table


def test_a_table_is_written_again_from_what_was_kept(record: Record) -> None:
    record.matrix.cell(GREEDY, "d", 16).add(Turn([2.0], 2.0, 1))
    record.results["ended"] = True
    record.write()
    _, table = written(record)
    again = Record.read(record.folder)
    (record.folder / "table.md").unlink()
    again.write()
    assert written(again)[1] == table


def test_cells_that_failed_count_as_failures(record: Record) -> None:
    record.matrix.cell(GREEDY, "c", 16).failure = "ReadError"
    assert record.failures == [f"{GREEDY} (c), 16 clients"]
