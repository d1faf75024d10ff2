"""Embeddings as arrays. While the run lasts they are in FILE.rows.jsonl, which grows as the other outputs do; at its
end all rows become FILE, those of earlier runs among them."""

from __future__ import annotations

import base64
import errno
import json
import os
import zipfile
from array import array
from collections.abc import Iterator
from contextlib import suppress

from app.bulk.results import Result
from app.bulk.writers.lines import Lines, json_line, text_of
from app.bulk.writers.tables import Row, Table
from app.bulk.writers.writer import OutputError


class Arrays(Lines):
    """`Lines` of the rows; `close` makes the file of them."""

    def __init__(self, path: str, table: Table, *, overwrite: bool = False) -> None:
        super().__init__(f"{path}.rows.jsonl", overwrite=overwrite)
        self._file = path
        self._table = table
        self._shape: tuple[int, ...] | None = None  # of every row

    def written(self) -> Iterator[str]:
        """Of the file, and of the rows of a run that was killed; but if it was killed when it had made the file of
        them, and only then are the last ones of both the same, the rows are done with."""
        last = last_row = None
        for row in self._earlier():
            last = row.path
            yield row.path
        for last_row in super().written():
            yield last_row
        if last is not None and last == last_row:
            self._num_whole_bytes = 0

    def _earlier(self) -> Iterator[Row]:
        if self._overwrite or not os.path.exists(self._file):
            return
        try:
            for row in self._table.read(self._file):
                self._check(row.shape)
                yield row
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise OutputError(f"cannot continue {self._file}: {error}; --existing overwrite begins anew") from None

    def _check(self, shape: tuple[int, ...]) -> None:
        if self._shape not in (None, shape):
            raise OutputError(f"{self._file} has embeddings of another model: {self._shape}, not {shape}")
        self._shape = shape

    def beginning(self) -> bytes:
        return b'{"path": "'

    def encoded(self, result: Result) -> bytes:
        """Raises OutputError for a shape that does not go with the others, OSError for a path that cannot be told."""
        if not self._table.can_name(result.path):
            raise OSError(errno.EILSEQ, "its name is not UTF-8, as Parquet's texts are")
        vectors = result.vectors
        shape = (len(vectors), len(vectors[0])) if len(vectors) > 1 else (len(vectors[0]),)
        self._check(shape)
        values = base64.b64encode(b"".join(array("f", vector).tobytes() for vector in vectors)).decode()
        return json_line({"path": result.path, "shape": shape, "values": values})

    def write(self, result: Result) -> None:
        """What is to be overwritten goes with the first result: a run that goes on from here must not add to it."""
        if self._overwrite and not self._begun:
            with suppress(FileNotFoundError):
                os.unlink(self._file)
        super().write(result)

    def path_in(self, record: bytes) -> str | None:
        row = json.loads(record)
        self._check(tuple(row["shape"]))
        return text_of(row["path"])

    def close(self) -> None:
        """Raises OutputError."""
        if self._descriptor < 0:
            return
        try:
            self._make_file()
        except OSError as error:
            raise OutputError(f"cannot write {self._file}: {error.strerror}; {self.path} has the rows") from None
        finally:
            super().close()

    def _make_file(self) -> None:
        num_rows, longest = 0, 1
        for row in self._every():
            num_rows, longest = num_rows + 1, max(longest, len(row.path))
        if num_rows:
            partial = f"{self._file}.partial"
            self._table.write(partial, self._every(), num_rows, longest)
            os.replace(partial, self._file)
        with suppress(FileNotFoundError):
            os.unlink(self.path)

    def _every(self) -> Iterator[Row]:
        yield from self._earlier()
        if not self._begun:
            self._cut(self._num_whole_bytes)
        with open(self.path, "rb") as file:
            for line in file:
                row = json.loads(line)
                yield Row(row["path"], tuple(row["shape"]), base64.b64decode(row["values"]))
