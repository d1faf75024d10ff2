"""Files of embeddings, read and written row by row: there may be more rows than the memory holds."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from tempfile import TemporaryFile
from typing import IO, Any, Protocol

from app.start.bulk import UsageError

ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Row:
    path: str
    shape: tuple[int, ...]  # (dimensions,), or with one vector for each query (queries, dimensions)
    values: bytes  # little-endian float32, row by row


class Table(Protocol):
    def can_name(self, path: str) -> bool: ...

    def read(self, path: str) -> Iterator[Row]:
        """Raises OSError, or ValueError for what is not such a file."""

    def write(self, path: str, rows: Iterable[Row], num_rows: int, longest_path: int) -> None: ...


class Npz:
    """`embeddings` (pictures, dimensions), and `paths`; `numpy.load` reads them."""

    def can_name(self, path: str) -> bool:  # noqa: ARG002
        return True

    def read(self, path: str) -> Iterator[Row]:
        import numpy as np

        with (
            zipfile.ZipFile(path) as archive,
            archive.open("embeddings.npy") as vectors,
            archive.open("paths.npy") as names,
        ):
            shape, _ = _header(vectors)
            _, kind = _header(names)
            num_bytes = 4 * int(np.prod(shape[1:]))
            for _ in range(shape[0]):
                name = np.frombuffer(names.read(kind.itemsize), kind)[0]
                yield Row(str(name), shape[1:], vectors.read(num_bytes))

    def write(self, path: str, rows: Iterable[Row], num_rows: int, longest_path: int) -> None:
        """The paths go to a file of their own meanwhile."""
        import numpy as np

        kind = np.dtype(f"<U{longest_path}")
        with zipfile.ZipFile(path, "w") as archive, TemporaryFile() as names:
            with archive.open("embeddings.npy", "w", force_zip64=True) as file:
                for place, row in enumerate(rows):
                    if not place:
                        _begin(file, "<f4", (num_rows, *row.shape))
                    file.write(row.values)
                    names.write(np.array(row.path, kind).tobytes())
            names.seek(0)
            with archive.open("paths.npy", "w", force_zip64=True) as file:
                _begin(file, kind.str, (num_rows,))
                while piece := names.read(2**20):
                    file.write(piece)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of a .npy file."""
    import numpy as np

    np.lib.format.read_magic(file)
    shape, _, kind = np.lib.format.read_array_header_1_0(file)
    return shape, kind


def _begin(file: IO[bytes], kind: str, shape: tuple[int, ...]) -> None:
    import numpy as np

    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})


class Parquet:
    """Columns `path` and `embedding`: a list, or with one vector for each query a list of lists."""

    def __init__(self) -> None:
        if find_spec("pyarrow") is None:
            raise UsageError("Parquet needs the extra parquet: pip install 'blip-serve[parquet]'; .npz needs nothing")

    def can_name(self, path: str) -> bool:
        """Its texts are UTF-8, which not all names of files are."""
        return path.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in path)

    def read(self, path: str) -> Iterator[Row]:
        import numpy as np
        from pyarrow.parquet import ParquetFile

        for batch in ParquetFile(path).iter_batches(ROWS_AT_ONCE, columns=["path", "embedding"]):
            for name, vector in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                values = np.array(vector, "<f4")
                yield Row(name, values.shape, values.tobytes())

    def write(self, path: str, rows: Iterable[Row], num_rows: int, longest_path: int) -> None:  # noqa: ARG002
        import numpy as np
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        writer, batch = None, []
        with open(path, "wb") as file:
            for row in rows:
                kind = pa.float32()
                for size in reversed(row.shape):
                    kind = pa.list_(kind, size)
                schema = pa.schema([("path", pa.string()), ("embedding", kind)])
                writer = writer or ParquetWriter(file, schema)
                batch.append(
                    {"path": row.path, "embedding": np.frombuffer(row.values, "<f4").reshape(row.shape).tolist()}
                )
                if len(batch) == ROWS_AT_ONCE:
                    writer.write_table(pa.Table.from_pylist(batch, schema))
                    batch = []
            if writer is not None:
                if batch:
                    writer.write_table(pa.Table.from_pylist(batch, schema))
                writer.close()
