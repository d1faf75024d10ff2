"""What versions of the library computed: the first numbers of each vector, in answers.json beside this.

    python -m tests.library.answers

adds those of the version that is installed."""

from __future__ import annotations

import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.library.checkpoints import CHECKPOINTS
from tests.library.lab import PICTURES, some_texts
from tests.library.reference import Reference

FILE = Path(__file__).with_name("answers.json")
NUMBERS = 6


def stored(of: str) -> dict[str, Any] | None:
    """By checkpoint: the vectors of the pictures, and those of the texts."""
    answers: dict[str, Any] | None = json.loads(FILE.read_text()).get(of)
    return answers


def _computed() -> dict[str, Any]:
    every = {}
    for name, tiny in CHECKPOINTS.items():
        with tempfile.TemporaryDirectory() as folder:
            tiny.write(Path(folder) / "tiny")
            reference = Reference(Path(folder) / "tiny", **tiny.tokenized)
            answers = reference.answers(PICTURES, some_texts(reference, tiny.limit))
        every[name] = [kind[:, :NUMBERS].round(5).tolist() for kind in (answers.images, answers.texts)]
    return every


def main() -> None:
    answers = json.loads(FILE.read_text()) if FILE.is_file() else {}
    answers[version("transformers")] = _computed()
    lines = ",\n".join(
        f' "{of}": {{\n' + ",\n".join(f'  "{name}": {json.dumps(one)}' for name, one in kept.items()) + "\n }"
        for of, kept in answers.items()
    )
    FILE.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
