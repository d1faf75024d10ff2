"""One section, in a process of its own: `python -m bench.gpu.section NAME --scale SCALE --folder FOLDER`. Each row is
written as soon as it is known, so that a section that fails or is stopped leaves what it had."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench.gpu import correct, machine, serving, speed
from bench.gpu.setup import SCALES, Row, Setup
from models.device import DTYPES

MEASURES: dict[str, Callable[[Setup], Iterator[Row]]] = {
    "machine": machine.about,
    "weights": machine.weights,
    "tests": correct.tests,
    **{f"golden {dtype}": partial(correct.golden_cases, dtype=dtype) for dtype in DTYPES},
    "demo": correct.demo,
    "BLIP over HTTP": serving.blip,
    "BLIP-2 over HTTP": serving.blip2,
    "speed": speed.eager,
    "compiled": speed.compiled_too,
}


def rows_file(folder: Path, name: str) -> Path:
    return folder / "rows" / f"{name}.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=MEASURES)
    parser.add_argument("--scale", choices=SCALES, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    setup = Setup(SCALES[options.scale], options.folder)
    with rows_file(options.folder, options.name).open("w") as file:
        for row in MEASURES[options.name](setup):
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(row, file=sys.stderr)


if __name__ == "__main__":
    main()
