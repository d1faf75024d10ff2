"""What came of one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    path: str
    record: Mapping[str, Any]  # of a JSON line, after the path
    text: str  # of a caption's file, or of a terminal
    cells: Sequence[str | float] = ()  # of a CSV row, after the path
    vectors: Sequence[Sequence[float]] = ()  # of an embedding: one, or one for each of BLIP-2's queries
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    path: str
    detail: str  # for people
    facts: Mapping[str, Any] = field(default_factory=dict)  # for programs: status, type, request_id, or the caption


def in_one_line(text: str) -> str:
    return " ".join(text.split())
