"""Which pictures are meant: files, folders and patterns -> paths, one at a time, however many there are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

# Of what the service reads.
EXTENSIONS = ("avif", "bmp", "dib", "gif", "heic", "heif", "jfif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp")
MAGIC = re.compile(r"[*?[]")
Tell = Callable[[str], object]
Folders = frozenset[tuple[int, int]]  # by device and inode


class MissingError(ValueError):
    """A path or pattern that leads to nothing; the message is one line."""


@dataclass(slots=True)
class Finder:
    """Folders are read as they are walked, in no order. What is hidden (.git, ._a.jpg) is passed over in them; what
    cannot be read, a loop of links and a link to nowhere are told and passed over."""

    tell: Tell
    recursive: bool = False
    extensions: Collection[str] = EXTENSIONS
    _linked: set[tuple[int, int]] = field(default_factory=set)  # folders that links have led to

    def find(self, argument: str) -> Iterator[str]:
        """Raises MissingError."""
        if os.path.isdir(argument):
            yield from self.walk(argument)
        elif os.path.lexists(argument):
            yield argument  # whatever its name is: it was asked for
        elif MAGIC.search(argument):
            yield from self._matching(argument)
        else:
            raise MissingError(f"there is no {argument}")

    def listed(self, lines: Iterable[bytes]) -> Iterator[str]:
        """One path a line. What is not there fails when its turn comes. Raises MissingError."""
        for line in lines:
            if b"\0" in line:
                raise MissingError("a path of the list has a NUL in it: one path a line, as `find -print` has them")
            path = os.fsdecode(line.rstrip(b"\r\n"))
            if path and os.path.isdir(path):
                yield from self.walk(path)
            elif path:
                yield path

    def walk(self, folder: str) -> Iterator[str]:
        to_read = [(folder, frozenset({_identity(folder)}))]
        while to_read:
            path, above = to_read.pop()
            for entry in self._entries(path):
                match _kind(entry):
                    case "folder" if self.recursive and (below := self._below(entry, above)):
                        to_read.append((entry.path, below))
                    case "file" if self._has_extension(entry.name):
                        yield entry.path
                    case "nothing" if self._has_extension(entry.name):
                        self.tell(f"{entry.path} is passed over: it is no file, or a link to nowhere")

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                yield from (entry for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            self.tell(f"{folder} is passed over: {error.strerror}")

    def _below(self, entry: os.DirEntry[str], above: Folders) -> Folders | None:
        """The folders that a folder is in, itself among them; None: it is not to be walked."""
        identity = _identity(entry.path)
        if entry.is_symlink():
            if identity in above:
                self.tell(f"{entry.path} is passed over: the link leads back to a folder that it is in")
                return None
            if identity in self._linked:
                self.tell(f"{entry.path} is passed over: another link led to the same folder")
                return None
            self._linked.add(identity)
        return above | {identity}

    def _matching(self, pattern: str) -> Iterator[str]:
        parts = pattern.split(os.sep)
        plain = next(place for place, part in enumerate(parts) if MAGIC.search(part))
        base = os.sep.join(parts[:plain]) or os.sep * pattern.startswith(os.sep) or "."
        found = False
        parts = parts[plain:] + ["*"] * (parts[-1] == "**")
        for path in self._expanded(base, parts, frozenset({_identity(base)}), folders="**" not in parts):
            found = True
            yield path.removeprefix("./") if base == "." else path
        if not found:
            raise MissingError(f"no picture matches {pattern}")

    def _expanded(self, folder: str, parts: list[str], above: Folders, *, folders: bool) -> Iterator[str]:
        """As a shell does it: what is hidden is not matched, `**` stands for any folders, none too. `folders`: those
        that match are walked."""
        wanted, *rest = parts
        if wanted == "**":
            yield from self._expanded(folder, rest, above, folders=folders)
        for entry in self._entries(folder):
            is_folder = _kind(entry) == "folder"
            if wanted == "**" or (rest and fnmatchcase(entry.name, wanted)):
                if is_folder and (below := self._below(entry, above)):
                    yield from self._expanded(entry.path, parts if wanted == "**" else rest, below, folders=folders)
            elif fnmatchcase(entry.name, wanted) and is_folder and folders:
                yield from self.walk(entry.path)
            elif fnmatchcase(entry.name, wanted) and not is_folder and self._has_extension(entry.name):
                yield entry.path

    def _has_extension(self, path: str) -> bool:
        return os.path.splitext(path)[1][1:].lower() in self.extensions


def _identity(folder: str) -> tuple[int, int]:
    try:
        found = os.stat(folder)
    except OSError:
        return (-1, -1)  # which reading it will tell
    return found.st_dev, found.st_ino


def _kind(entry: os.DirEntry[str]) -> Literal["folder", "file", "nothing"]:
    """`nothing`: a pipe or a device too."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "nothing"
    except OSError:  # a link to itself
        return "nothing"
