"""A text file beside each picture, as kohya's trainers and others read it: a.jpg -> a.txt, one line of UTF-8."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from app.bulk.results import Result, in_one_line

SEPARATOR = ", "  # between what was there and what is added: trainers that shuffle tags split there
MOST_NAME_BYTES = 255
Existing = Literal["skip", "overwrite", "append", "prepend"]


@dataclass(frozen=True, slots=True)
class Sidecars:
    extension: str = ".txt"
    existing: Existing = "skip"
    keep_ext: bool = False  # a.jpg -> a.jpg.txt

    def open(self) -> None:
        pass

    def written(self) -> Iterator[str]:
        return iter(())

    def target(self, path: str) -> str:
        return (path if self.keep_ext else os.path.splitext(path)[0]) + self.extension

    def has(self, path: str) -> bool:
        return self.existing == "skip" and os.path.exists(self.target(path))

    def write(self, result: Result) -> None:
        """Readers see the whole text or none: it is renamed into its place. Its first name is always the same, so that
        a run which was killed leaves nothing that the next one does not tidy up."""
        target = self.target(result.path)
        folder, name = os.path.split(target)
        partial = os.path.join(folder, _partial(name))
        try:
            with open(partial, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                file.write(f"{self._joined(result.text, target)}\n")
            os.replace(partial, target)
        except OSError:
            with suppress(OSError):
                os.unlink(partial)
            raise

    def _joined(self, text: str, target: str) -> str:
        """What is there already, between separators, is not added once more: a run that was killed can be repeated."""
        if self.existing not in ("append", "prepend"):
            return text
        try:
            with open(target, encoding="utf-8", errors="surrogateescape") as file:
                there = in_one_line(file.read())
        except FileNotFoundError:
            there = ""
        if self.existing == "append":
            is_there = f"{SEPARATOR}{there}".endswith(f"{SEPARATOR}{in_one_line(text)}")
            return there if is_there else SEPARATOR.join(filter(None, (there, text)))
        is_there = f"{there}{SEPARATOR}".startswith(f"{in_one_line(text)}{SEPARATOR}")
        return there if is_there else SEPARATOR.join(filter(None, (text, there)))

    def close(self) -> None:
        pass


def _partial(name: str) -> str:
    """Short enough wherever the name itself is."""
    partial = f".{name}.partial"
    if len(os.fsencode(partial)) <= MOST_NAME_BYTES:
        return partial
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()}.partial"
