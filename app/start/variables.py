"""The BLIP_* variables that are not settings: a misspelt one is refused, another one is told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from app.settings import Settings, variable

OF_OUR_TOOLS = frozenset({"BLIP_TARGET", "BLIP_URL", "BLIP_API_KEY"})  # of compose, and of clients
# What Kubernetes sets for a Service whose name begins with blip; its bare *_PORT holds a URL.
SERVICE_LINK = re.compile(r"BLIP_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
MISSPELT_LETTERS = 2


class MisspeltError(ValueError):
    """A variable that is almost a setting; the message is one line for the operator."""


def check_variables(environment: Mapping[str, str]) -> list[str]:
    """Returns those that are no settings, and not known to be somebody else's. Raises MisspeltError."""
    settings = [variable(name) for name in Settings.model_fields]
    unknown = [name for name, value in environment.items() if _is_unknown(name.upper(), value, settings)]
    for name in unknown:
        if meant := closest(name.upper(), settings):
            raise MisspeltError(f"there is no setting {name}; did you mean {meant}?")
    return unknown


def _is_unknown(name: str, value: str, settings: list[str]) -> bool:
    if not name.startswith("BLIP_") or name in OF_OUR_TOOLS or name in settings:
        return False
    return not (SERVICE_LINK.fullmatch(name) or (name.endswith("_PORT") and "://" in value))


def closest(word: str, words: Iterable[str]) -> str | None:
    """The one with the fewest letters to change, if those are few."""
    letters, found = min((distance(word, one), one) for one in words)
    return found if letters <= MISSPELT_LETTERS else None


def distance(one: str, other: str) -> int:
    """Levenshtein's: letters to insert, delete or replace."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        before, row = row, [number]
        for place, theirs in enumerate(other, 1):
            row.append(min(before[place] + 1, row[-1] + 1, before[place - 1] + (letter != theirs)))
    return row[-1]
