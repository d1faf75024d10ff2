"""Texts that point to damaged, mismatched or too coarsely quantised weights. They are counted, never hidden."""

from __future__ import annotations

REPEATS = 4  # of a phrase in a row; more than a real caption or answer has
LONGEST_PHRASE = 4  # words


def oddity(text: str, prompt: str) -> str | None:
    """`empty`, `echo` or `repetition`; None for a normal text. `prompt`: the question, or the caption's prefix."""
    words, asked = text.lower().split(), prompt.lower().split()
    if not words:
        return "empty"
    if asked and words[: len(asked)] == asked:
        return "echo"
    return "repetition" if any(_repeats(words, length) for length in range(1, LONGEST_PHRASE + 1)) else None


def _repeats(words: list[str], length: int) -> bool:
    """Whether some phrase of `length` words comes REPEATS times in a row."""
    equal = 0  # consecutive words that equal the word `length` places before
    for before, word in zip(words, words[length:], strict=False):
        equal = equal + 1 if word == before else 0
        if equal == length * (REPEATS - 1):
            return True
    return False
