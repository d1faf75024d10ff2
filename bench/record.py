"""What a run has measured so far, and its files, which are written anew after each part of it. `python -m bench.record
FOLDER` writes the table and the plots of a folder's results.json again."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.cells import Cell, Matrix
from bench.goals import goals
from bench.plots import plot_growth, plot_throughput
from bench.report import render

FILE = "results.json"


@dataclass(slots=True)
class Record:
    folder: Path
    results: dict[str, Any]
    matrix: Matrix = field(default_factory=Matrix)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.results = {"contenders": [], "left_out": {}, "failures": {}, "ended": False} | self.results

    @classmethod
    def read(cls, folder: Path) -> Record:
        results = json.loads((folder / FILE).read_text())
        began = time.monotonic() - 60 * results["minutes"]
        return cls(folder, results, Matrix(Cell(**cell) for cell in results.pop("cells")), began)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """One that fails is told, and the others run. However it ends, what there is is written."""
        try:
            yield
        except Exception as error:
            self.results["failures"][name] = repr(error)
        finally:
            self.write()
            self.plot()

    def write(self) -> None:
        """The figures are written even if something keeps them from being told."""
        self.results["minutes"] = (time.monotonic() - self.began) / 60
        try:
            found = [asdict(goal) | {"met": goal.met} for goal in goals(self.results, self.matrix)]
            report = render(self.results, self.matrix)
        except Exception as error:
            self.results["failures"]["report"] = repr(error)
            found, report = [], f"The report failed: {error!r}\n"
        cells = [asdict(cell) for cell in self.matrix]
        self.folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps(self.results | {"cells": cells, "goals": found}, indent=1)
        (self.folder / FILE).write_text(content + "\n")
        (self.folder / "table.md").write_text(report)

    def plot(self) -> None:
        try:
            if names := {row["key"]: row["name"] for row in self.results["contenders"]}:
                plot_throughput(self.matrix, names, self.folder / "throughput.png")
            if growth := self.results.get("growth"):
                plot_growth(growth, self.folder / "growth.png")
        except Exception as error:
            self.results["failures"]["plots"] = repr(error)

    @property
    def failures(self) -> list[str]:
        """Of parts and of cells."""
        cells = [f"{cell.workload} ({cell.contender}), {cell.clients} clients" for cell in self.matrix if cell.failure]
        return [*self.results["failures"], *cells]


def main() -> None:
    record = Record.read(Path(sys.argv[1]))
    record.write()
    record.plot()


if __name__ == "__main__":
    main()
