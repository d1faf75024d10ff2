"""What all writers have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from app.bulk.results import Result


class OutputError(ValueError):
    """An output that cannot be written; the message is one line."""


class Writer(Protocol):
    def open(self) -> None:
        """Before the first result. Raises OutputError."""

    def written(self) -> Iterator[str]:
        """Paths that the output has from an earlier run, before `open`. Changes nothing. Raises OutputError, and
        UsageError for what is not ours to continue."""

    def target(self, path: str) -> str | None:
        """The file that this picture's result alone goes to; None: all go to one place. Raises UsageError."""

    def has(self, path: str) -> bool:
        """Whether the target is there, and is to be left as it is."""

    def write(self, result: Result) -> None:
        """Once it returns, the result outlives the process. Raises OSError."""

    def close(self) -> None: ...
