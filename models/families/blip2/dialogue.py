"""The prompts of BLIP-2's questions, worded as in LAVIS' examples."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from models.inputs import Turn

TEMPLATE = "Question: {} Answer:"


def prompt(question: str, template: str | None, history: Sequence[Turn] = ()) -> str:
    """Earlier turns, oldest first, then the question in `template`; None: the authors'."""
    # Only the template is formatted, and not by str.format: what clients write may hold braces.
    earlier = "".join(f"Question: {turn.question} Answer: {turn.answer}. " for turn in history)
    return earlier + (TEMPLATE if template is None else template).replace("{}", question)


def latest(history: Sequence[Turn], fits: Callable[[Sequence[Turn]], bool]) -> Sequence[Turn]:
    """The longest suffix of `history` that fits; empty if not even the last turn fits."""
    # Doubling from the newest turn: the cost depends on what fits, not on what was sent.
    reach = 1
    while reach < len(history) and fits(history[-reach:]):
        reach *= 2
    lengths = range(1, min(reach, len(history)) + 1)
    num_fitting = bisect_left(lengths, True, key=lambda length: not fits(history[-length:]))
    return history[len(history) - num_fitting :]
