"""The manifest of a data set: JSON lines with a picture's path and the texts that came with it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator

from app.bulk.plan import Picture


class ManifestError(ValueError):
    """What cannot be read as one; the message is one line."""


def in_manifest(path: str) -> Iterator[Picture]:
    """`-`: stdin. Paths are relative to the manifest's folder. Raises ManifestError."""
    if path == "-":
        yield from _pictures(sys.stdin.buffer, "stdin", "")
        return
    try:
        with open(path, "rb") as file:
            yield from _pictures(file, path, os.path.dirname(path))
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}") from None


def _pictures(lines: Iterable[bytes], name: str, folder: str) -> Iterator[Picture]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
                picture, texts = row["path"], row.get("texts", [])
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise ManifestError(f'{name}, line {number}: not {{"path": ..., "texts": [...]}}') from None
            if not isinstance(picture, str) or not _are_texts(texts):
                raise ManifestError(f"{name}, line {number}: path must be a string, and texts a list of strings")
            if not _can_be_a_path(picture):
                raise ManifestError(f"{name}, line {number}: no file can have this path")
            yield Picture(os.path.join(folder, picture), tuple(texts))


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _can_be_a_path(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text) and text != ""
    except UnicodeEncodeError:
        return False
