"""What versions of the library computed of what is in regions.py: first numbers, in region_answers.json beside this.

python -m tests.library.region_answers

adds those of the version that is installed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tests.app.test_library_regions import KINDS, PICTURES, SIZES, TEXTS, catalog_of
from tests.library.regions import Numbers, Regions

FILE = Path(__file__).with_name("region_answers.json")
NUMBERS = 24
SHOWN = list(zip(PICTURES, SIZES, strict=True))


def stored(of: str) -> dict[str, list[float]] | None:
    """By checkpoint."""
    answers: dict[str, list[float]] | None = json.loads(FILE.read_text()).get(of)
    return answers


def expected(kind: str, library: Regions) -> Numbers:
    """Of each picture and text: probabilities; of boxes their places too, as shares of the longer side."""
    rows: list[Any] = []
    for picture, size in SHOWN:
        for text in TEXTS:
            if kind == "clipseg":
                rows.append([library.mask(picture, text).max()])
            elif kind.startswith("owl"):
                found = library.boxes(picture, [text], 0.0, size)
                rows.append(by_score(found["scores"], found["boxes"], size))
            else:
                logits = library.logits([picture] * (2 if kind.endswith("nlvr2") else 1), text)
                soft = np.exp(logits) / np.exp(logits).sum()
                rows.append(soft if kind.endswith("nlvr2") else 1 / (1 + np.exp(-logits)))
    return np.concatenate([np.ravel(row) for row in rows])


def by_score(scores: Sequence[float], boxes: Any, size: tuple[int, int]) -> Numbers:
    rows = np.column_stack([scores, np.asarray(boxes) / max(size)])
    return np.ravel(rows[np.argsort(-rows[:, 0], kind="stable")])


def _computed() -> dict[str, list[float]]:
    every = {}
    for kind, (task, _, model) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            catalog_of(kind, Path(folder))
            every[kind] = expected(kind, Regions(Path(folder) / task, model))[:NUMBERS].round(5).tolist()
    return every


def main() -> None:
    answers = json.loads(FILE.read_text()) if FILE.is_file() else {}
    answers[version("transformers")] = _computed()
    lines = ",\n".join(
        f' "{of}": {{\n' + ",\n".join(f'  "{kind}": {json.dumps(one)}' for kind, one in kept.items()) + "\n }"
        for of, kept in answers.items()
    )
    FILE.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
