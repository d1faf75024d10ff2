"""Text that is told while it grows: what is settled stays, whatever follows."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from models.runners.text import Tokenizer, WordPiece
from tests import golden

TRAPS = [
    "don't",
    "it's not",
    "do n ' t stop",
    "rock ' n ' roll .",
    "a ' b ' c",
    "hello , world ! yes ?",
    "café 東京 🙂 z",
]
TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "blip": lambda: WordPiece(golden.BLIP / "checkpoints" / "caption"),
    "opt": lambda: Tokenizer(golden.BLIP2 / "checkpoints" / "opt", "vocab.json"),
    "t5": lambda: Tokenizer(golden.BLIP2 / "checkpoints" / "t5"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_is_settled_begins_every_longer_text(name: str) -> None:
    tokenizer, rng = TOKENIZERS[name](), Random(name)
    sequences = [tokenizer.pieces(text) for text in TRAPS]
    apostrophe, joins = tokenizer.pieces("'"), tokenizer.pieces("n ' t s re m .")
    for _ in range(300):
        some = [rng.randrange(len(tokenizer)) for _ in range(12)]
        for _ in range(4):
            some[rng.randrange(12)] = rng.choice(apostrophe + joins)
        sequences.append(some)
    for ids in sequences:
        whole = tokenizer.text(ids)
        for length in range(len(ids) + 1):
            settled = tokenizer.settled(ids[:length])
            assert whole.startswith(settled), (whole, settled)


def test_the_last_word_waits_and_an_apostrophe_holds_the_word_before() -> None:
    tokenizer = TOKENIZERS["blip"]()
    told = [tokenizer.settled(tokenizer.pieces(text)) for text in ("a", "a red", "a red circle", "a red '")]
    assert told == ["", "a", "a red", "a"]
