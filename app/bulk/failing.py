"""What did not work, listed for people and programs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import BinaryIO, Protocol

from app.bulk.results import Failure
from app.bulk.writers.lines import json_line
from app.bulk.writers.writer import OutputError


class Failures(Protocol):
    def add(self, failure: Failure) -> None: ...

    def close(self) -> None: ...


class Told:
    """For a few pictures on a terminal: one line each."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell

    def add(self, failure: Failure) -> None:
        self._tell(f"{failure.path}: {failure.detail}")

    def close(self) -> None:
        pass


class Listed:
    """A file of this run's failures alone: what is asked again and works is in it no more."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        try:
            if stat.S_ISREG(os.lstat(path).st_mode):  # and no /dev/null
                os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise OutputError(f"cannot begin {path}: {error.strerror}") from None

    def add(self, failure: Failure) -> None:
        """Raises OutputError."""
        try:
            if self._file is None:
                self._file = open(self._path, "wb", buffering=0)  # noqa: SIM115
            self._file.write(json_line({"path": failure.path, "error": failure.detail, **failure.facts}))
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror}") from None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
