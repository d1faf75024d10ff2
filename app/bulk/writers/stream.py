"""To standard output: texts for people, or records for the next program."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

from app.bulk.results import Result
from app.bulk.writers.writer import OutputError


class Stream:
    def __init__(self, encoded: Callable[[Result], bytes], head: bytes = b"") -> None:
        self._encoded = encoded
        self._head = head

    def open(self) -> None:
        put(self._head)

    def written(self) -> Iterator[str]:
        return iter(())

    def target(self, path: str) -> str | None:  # noqa: ARG002
        return None

    def has(self, path: str) -> bool:  # noqa: ARG002
        return False

    def write(self, result: Result) -> None:
        put(self._encoded(result))

    def close(self) -> None:
        pass


def put(data: bytes) -> None:
    """To stdout, at once. Raises OutputError: what comes next fares no better."""
    if sys.stdout is None:  # ours is closed
        raise OutputError("cannot write to stdout: it is closed")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise OutputError(f"cannot write to stdout: {error.strerror}") from None


def alone(result: Result) -> bytes:
    return f"{result.text}\n".encode(errors="replace")


def under_its_path(result: Result) -> bytes:
    return os.fsencode(result.path) + b"\n" + alone(result)
