"""What a decoder makes in place of a square, and how it is told to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Heat:
    """Drawn over the picture: levels 0 to 255, a byte for each patch of it, row by row."""

    rows: int
    columns: int
    levels: bytes


@dataclass(frozen=True, slots=True)
class Segments:
    """Drawn over the picture, each in a colour of its own, with a legend below: maps like a `Heat`'s, one after the
    other."""

    names: tuple[str, ...]
    rows: int
    columns: int
    levels: bytes


@dataclass(frozen=True, slots=True)
class Boxes:
    """Drawn over the picture: left, top, right and bottom in its pixels, and what is written there."""

    boxes: tuple[tuple[float, float, float, float], ...]
    names: tuple[str, ...]
    kinds: tuple[int, ...]  # those of one kind have one colour


@dataclass(frozen=True, slots=True)
class Masks:
    """Without the picture: maps like a `Heat`'s, one after the other, each made as large as it is."""

    width: int
    height: int
    rows: int
    columns: int
    levels: bytes


Drawing = Heat | Segments | Boxes | Masks
KINDS: dict[str, type[Drawing]] = {kind.__name__: kind for kind in (Heat, Segments, Boxes, Masks)}


def maps_of(drawing: Segments | Masks) -> list[bytes]:
    size = drawing.rows * drawing.columns
    return [drawing.levels[start : start + size] for start in range(0, len(drawing.levels), size)]


def packed(drawing: Drawing | None) -> bytes:
    """Its fields as JSON, in a line, and then its levels."""
    if drawing is None:
        return b""
    fields = asdict(drawing)
    levels: bytes = fields.pop("levels", b"")
    return json.dumps([type(drawing).__name__, fields]).encode() + b"\n" + levels


def unpacked(data: bytes) -> Drawing | None:
    if not data:
        return None
    head, _, levels = data.partition(b"\n")
    name, fields = json.loads(head)
    fields = {name: _frozen(value) for name, value in fields.items()}
    return KINDS[name](**fields | ({"levels": levels} if levels else {}))


def _frozen(value: Any) -> Any:
    """JSON has no tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
