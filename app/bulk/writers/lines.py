"""A file that grows by one record a picture: JSON lines, CSV, and the metadata.jsonl of an image folder."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from app.bulk.results import Result
from app.bulk.writers.writer import OutputError
from app.start.bulk import UsageError


class Lines(ABC):
    """Appended in the order of completion, each record at once. A record that a killed run left torn is cut off, and
    its picture asked about again. Two runs cannot write to one file."""

    def __init__(self, path: str, *, overwrite: bool = False) -> None:
        self.path = path
        self._overwrite = overwrite
        self._descriptor = -1
        self._num_whole_bytes = 0
        self._begun = False

    @abstractmethod
    def encoded(self, result: Result) -> bytes:
        """One record, with its end of line."""

    @abstractmethod
    def path_in(self, record: bytes) -> str | None:
        """None: it is the head. Raises ValueError, KeyError or TypeError."""

    @abstractmethod
    def beginning(self) -> bytes:
        """Of the next record, by which a torn one is known."""

    def head(self) -> bytes:
        return b""

    def records(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Without what is torn."""
        return (line for line in lines if line.endswith(b"\n"))

    def written(self) -> Iterator[str]:
        try:
            self._lock(os.open(self.path, os.O_RDWR | os.O_APPEND))
            if self._overwrite or not self._is_file():
                return
            with open(self._descriptor, "rb", closefd=False) as file:
                for record in self.records(file):
                    if (path := self._path_in(record)) is not None:
                        yield path
                    self._num_whole_bytes += len(record)
                self._check_torn(file)
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"cannot continue {self.path}: {error.strerror}") from None

    def _path_in(self, record: bytes) -> str | None:
        try:
            return self.path_in(record)
        except (ValueError, KeyError, TypeError):
            raise self._not_ours() from None

    def _check_torn(self, file: IO[bytes]) -> None:
        """What is to be cut off must be ours, too."""
        file.seek(self._num_whole_bytes)
        beginning = self.beginning()
        if not beginning.startswith(file.read(len(beginning))):
            raise self._not_ours()

    def _not_ours(self) -> UsageError:
        return UsageError(
            f"{self.path} was not written by such a run: choose another --output, or --existing overwrite"
        )

    def open(self) -> None:
        try:
            if self._descriptor < 0:
                self._lock(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666))
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from None

    def _lock(self, descriptor: int) -> None:
        self._descriptor = descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"another run writes to {self.path}") from None

    def target(self, path: str) -> str | None:  # noqa: ARG002
        return None

    def has(self, path: str) -> bool:  # noqa: ARG002
        return False

    def write(self, result: Result) -> None:
        """What is to be overwritten stays until there is a result: the options may be wrong."""
        record = self.encoded(result)
        if not self._begun:
            self._cut(self._num_whole_bytes)
            record = record if self._num_whole_bytes else self.head() + record
            self._begun = True
        self._append(record)

    def _append(self, data: bytes) -> None:
        """A disk that becomes full within a record keeps nothing of it."""
        before = os.fstat(self._descriptor).st_size
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            self._cut(before)
            raise

    def _cut(self, num_bytes: int) -> None:
        if self._is_file():
            os.ftruncate(self._descriptor, num_bytes)

    def _is_file(self) -> bool:
        """And no pipe or device, which keeps nothing."""
        return stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


class JsonLines(Lines):
    def beginning(self) -> bytes:
        return b'{"path": "'

    def encoded(self, result: Result) -> bytes:
        return json_line({"path": result.path, **result.record})

    def path_in(self, record: bytes) -> str | None:
        return text_of(json.loads(record)["path"])


class ImageFolder(Lines):
    """As the `imagefolder` of Hugging Face's datasets has it: `file_name`, relative to this file, and columns."""

    def __init__(self, path: str, *, overwrite: bool = False) -> None:
        super().__init__(path, overwrite=overwrite)
        self._folder = os.path.dirname(os.path.abspath(path))

    def beginning(self) -> bytes:
        return b'{"file_name": "'

    def encoded(self, result: Result) -> bytes:
        return json_line({"file_name": self._relative(result.path), "text": result.text})

    def path_in(self, record: bytes) -> str | None:
        return os.path.join(self._folder, text_of(json.loads(record)["file_name"]))

    def target(self, path: str) -> str | None:
        """None, once it is seen that it can be told relative to the folder."""
        if self._relative(path).split(os.sep)[0] == os.pardir:
            raise UsageError(f"{path} is not below {self._folder}, where {os.path.basename(self.path)} is")
        return None

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self._folder)


class Csv(Lines):
    def __init__(self, path: str, columns: Sequence[str], *, overwrite: bool = False) -> None:
        super().__init__(path, overwrite=overwrite)
        self._columns = ("path", *columns)

    def head(self) -> bytes:
        return csv_row(self._columns)

    def beginning(self) -> bytes:
        return b"" if self._num_whole_bytes else self.head()

    def encoded(self, result: Result) -> bytes:
        return csv_row((result.path, *result.cells))

    def records(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """A path may have an end of line in it, within quotes."""
        record = b""
        for line in lines:
            record += line
            if record.endswith(b"\n") and record.count(b'"') % 2 == 0:
                yield record
                record = b""

    def path_in(self, record: bytes) -> str | None:
        if not self._num_whole_bytes:
            if record != self.head():
                raise ValueError("other columns")
            return None
        (row,) = csv.reader(io.StringIO(os.fsdecode(record), newline=""), strict=True)
        return row[0]


def text_of(value: object) -> str:
    """Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def json_line(record: Mapping[str, Any]) -> bytes:
    """A path that is not UTF-8 is escaped, as Python reads it again."""
    try:
        return f"{json.dumps(record, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps(record)}\n".encode()


def csv_row(cells: Sequence[str | float]) -> bytes:
    buffer = io.StringIO(newline="")
    has_returns = any("\r" in str(cell) for cell in cells)  # which csv leaves bare, as it looks for "\n" alone
    csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL if has_returns else csv.QUOTE_MINIMAL).writerow(cells)
    return os.fsencode(buffer.getvalue())
