"""What a generated text looks like when weights are damaged, mismatched or quantised too far. Counted, never hidden."""

from __future__ import annotations

REPEATS = 4  # of a phrase in a row: no caption or answer has so many
LONGEST_PHRASE = 4  # words


def oddity(text: str, prompt: str) -> str | None:
    """`empty`, `echo` or `repetition`; None: a text like any other. `prompt`: the question, or the caption's prefix."""
    words, asked = text.lower().split(), prompt.lower().split()
    if not words:
        return "empty"
    if asked and words[: len(asked)] == asked:
        return "echo"
    return "repetition" if any(_repeats(words, length) for length in range(1, LONGEST_PHRASE + 1)) else None


def _repeats(words: list[str], length: int) -> bool:
    """Whether some phrase of `length` words comes REPEATS times in a row."""
    equal = 0  # words in a row that are the same as the one a phrase before
    for before, word in zip(words, words[length:], strict=False):
        equal = equal + 1 if word == before else 0
        if equal == length * (REPEATS - 1):
            return True
    return False
