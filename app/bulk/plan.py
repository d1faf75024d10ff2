"""The pictures of a run, kept on disk: memory stays the same for a million of them."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA cache_size = -1000;  -- kB
CREATE TABLE done (key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE pictures (argument INTEGER, path BLOB, key BLOB PRIMARY KEY, texts TEXT) WITHOUT ROWID;
CREATE TABLE targets (key BLOB PRIMARY KEY, path BLOB) WITHOUT ROWID;
BEGIN;
"""


class ClashError(ValueError):
    """Two pictures whose captions would go to one file; the message is one line."""


@dataclass(frozen=True, slots=True)
class Picture:
    path: str  # as it was asked for
    texts: tuple[str, ...] = ()  # in a manifest


class Plan:
    """Each picture once, however many ways lead to its path. In a database without a name, which SQLite keeps in a
    temporary file that goes with the process."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(TABLES)
        self.num_to_do = 0
        self.num_done = 0  # by an earlier run

    def mark_done(self, paths: Iterable[str]) -> None:
        """To be told before anything is added."""
        self._db.executemany("INSERT OR IGNORE INTO done VALUES (?)", ((_key(path),) for path in paths))

    def add(self, picture: Picture, argument: int = 0, *, target: str | None = None, done: bool = False) -> None:
        """`argument`: the place of what led to it, by which they are ordered. `target`: the file that its caption goes
        to. `done`: it has one. The texts of a picture that is named again are added to its first ones.

        Raises ClashError."""
        path, key = os.fsencode(picture.path), _key(picture.path)
        texts = json.dumps(picture.texts) if picture.texts else None
        added = self._db.execute(
            "INSERT OR IGNORE INTO pictures VALUES (?, ?, ?, ?)", (argument, path, key, texts)
        ).rowcount
        if not added:
            self._add_texts(key, picture.texts)
            return
        if target is not None:
            self._claim(target, path)
        if done or self._db.execute("SELECT 1 FROM done WHERE key = ?", (key,)).fetchone():
            self._db.execute("INSERT OR IGNORE INTO done VALUES (?)", (key,))
            self.num_done += 1
        else:
            self.num_to_do += 1

    def _claim(self, target: str, path: bytes) -> None:
        if not self._db.execute("INSERT OR IGNORE INTO targets VALUES (?, ?)", (_key(target), path)).rowcount:
            (other,) = self._db.execute("SELECT path FROM targets WHERE key = ?", (_key(target),)).fetchone()
            raise ClashError(
                f"{os.fsdecode(other)} and {os.fsdecode(path)} would both have their caption in {target}: --keep-ext "
                "keeps them apart"
            )

    def _add_texts(self, key: bytes, texts: tuple[str, ...]) -> None:
        if texts:
            (first,) = self._db.execute("SELECT texts FROM pictures WHERE key = ?", (key,)).fetchone()
            every = dict.fromkeys((*json.loads(first or "[]"), *texts))
            self._db.execute("UPDATE pictures SET texts = ? WHERE key = ?", (json.dumps([*every]), key))

    def __iter__(self) -> Iterator[Picture]:
        """What is to do, by argument and path."""
        rows = self._db.execute(
            "SELECT path, texts FROM pictures WHERE key NOT IN (SELECT key FROM done) ORDER BY argument, path"
        )
        for path, texts in rows:
            yield Picture(os.fsdecode(path), tuple(json.loads(texts or "[]")))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()


def _key(path: str) -> bytes:
    return os.fsencode(os.path.abspath(path))
