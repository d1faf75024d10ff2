"""To standard output: texts for people, or records for the next program."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

from app.bulk.results import Result


class Stream:
    def __init__(self, encoded: Callable[[Result], bytes], head: bytes = b"") -> None:
        self._encoded = encoded
        self._head = head

    def open(self) -> None:
        self._put(self._head)

    def written(self) -> Iterator[str]:
        return iter(())

    def target(self, path: str) -> str | None:  # noqa: ARG002
        return None

    def has(self, path: str) -> bool:  # noqa: ARG002
        return False

    def write(self, result: Result) -> None:
        self._put(self._encoded(result))

    def _put(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def close(self) -> None:
        pass


def alone(result: Result) -> bytes:
    return f"{result.text}\n".encode(errors="replace")


def under_its_path(result: Result) -> bytes:
    return os.fsencode(result.path) + b"\n" + alone(result)
