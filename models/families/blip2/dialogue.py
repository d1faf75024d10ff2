"""The prompts of BLIP-2's questions, in the words of LAVIS' examples."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from models.base import Turn

TEMPLATE = "Question: {} Answer:"


def prompt(question: str, template: str | None, history: Sequence[Turn] = ()) -> str:
    """Earlier turns, oldest first, and the question in its template."""
    # Of the service's words, not of the client's: these may hold braces.
    earlier = "".join(f"Question: {turn.question} Answer: {turn.answer}. " for turn in history)
    return earlier + (TEMPLATE if template is None else template).replace("{}", question)


def latest(history: Sequence[Turn], fits: Callable[[Sequence[Turn]], bool]) -> Sequence[Turn]:
    """The longest end of `history` that fits, or nothing."""
    # From the newest turn on, so that what it costs depends on what fits, not on what was sent.
    reach = 1
    while reach < len(history) and fits(history[-reach:]):
        reach *= 2
    lengths = range(1, min(reach, len(history)) + 1)
    num_fitting = bisect_left(lengths, True, key=lambda length: not fits(history[-length:]))
    return history[len(history) - num_fitting :]
