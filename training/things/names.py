"""How the names of emoji (Unicode's CLDR, npm package unicode-emoji-json) become what people call things, and how
English counts these. The exceptions are in things.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray")
NUMBERS = ("zero", "one", "two", "three")
GROUPS = ("Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects")

_TABLE = Path(__file__).with_name("things.toml")
# Not the thing itself but a view, state or part of it.
_VIEW = re.compile(r"^(?:oncoming|front-facing|closed|wrapped) | face$")
# A name of several things, a moment, or one of many that look alike.
_NO_THING = re.compile(
    r" (?:with|and|of|showing|behind|on|at|in|over|without|not) |^(?:linked|clinking|flower|fallen|incoming) | suit$|"
    r"o'clock|-thirty|^(?:new|full|first|last|waxing|waning) |\d|'s |\bmoon viewing\b|"
    r"\b(?:arrival|departure|banknote|speaker|mailbox|tilted|japanese|tokyo|fuji|mahjong|chart|unlocked|camping)\b"
)
_BY_EAR = re.compile(r"(?!one|uni)[aeiou]|hour")  # begins with a vowel when it is said


@dataclass(frozen=True, slots=True)
class Noun:
    """What a thing is called. `kind`: "count" (a dog, two dogs), "mass" (some broccoli) or "plural" (some beans)."""

    name: str
    kind: Literal["count", "mass", "plural"] = "count"

    def one(self, *adjectives: str) -> str:
        """With its article: "a small red car", "an owl", "some broccoli"."""
        words = " ".join([*adjectives, self.name])
        if self.kind != "count":
            return f"some {words}"
        return f"{'an' if _BY_EAR.match(words) else 'a'} {words}"

    @property
    def many(self) -> str:
        """Its plural: dogs, slices of pizza. What is not counted stays as it is."""
        if self.kind != "count":
            return self.name
        head, of, rest = self.name.partition(" of ")
        before, _, last = head.rpartition(" ")
        return f"{before} {plural(last)}".lstrip() + of + rest


def plural(word: str) -> str:
    irregular = table()["plural"].get(word)
    if irregular:
        return str(irregular)
    if word.endswith("fish"):
        return word
    if re.search(r"(?:s|x|z|ch|sh|[rtn]ado|[mt]ato|ango|cano|quito)$", word):
        return f"{word}es"
    return re.sub(r"(?<=[^aeiou])y$", "ie", word) + "s"


@cache
def table() -> Mapping[str, Any]:
    return tomllib.loads(_TABLE.read_text())


@cache
def clean_names() -> Sequence[str]:
    """The names that the demo is trained with, in the table's order."""
    return tuple(name for names in table()["clean"].values() for name in names)


@cache  # it is asked for every question and caption
def alike(name: str, other: str) -> bool:
    """Whether one is the other or a kind of it, so that what is asked of one may be answered by the other."""
    return name == other or _is_kind_of(name, other) or _is_kind_of(other, name)


def _is_kind_of(name: str, other: str) -> bool:
    kind = table()["kind_of"].get(name)
    return other == kind if kind else name.endswith(f" {other}")


def unlike(nouns: Sequence[Noun], names: Sequence[str]) -> list[Noun]:
    """Those that are like none of these names."""
    return [noun for noun in nouns if not any(alike(noun.name, name) for name in names)]


def noun(name: str) -> Noun:
    for kind in ("mass", "plural"):
        if name in table()["kinds"][kind]:
            return Noun(name, kind)
    return Noun(name)


def clean(name: str) -> tuple[Noun, str | None] | None:
    """What is said for the CLDR name, and the colour that it tells; None for what is no thing, or not one that people
    name so: ("dog face") -> dog, None; ("green apple") -> apple, green."""
    name = name.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    spoken = table()["spoken"].get(re.sub(r"[ -]", "_", name.replace("'", "")))
    if spoken is None:
        if _NO_THING.search(name):
            return None
        spoken = _VIEW.sub("", name)
    color, _, rest = spoken.partition(" ")
    if color not in COLORS or not rest:
        color, rest = None, spoken
    if rest in table()["kinds"]["dropped"] or not re.fullmatch(r"[a-z -]+", rest):
        return None
    return noun(rest.replace("-", " ")), color
