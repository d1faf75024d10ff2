"""A service with one of the tiny checkpoints, beside what the library computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from models.families.library.texts import Padding, TextReader
from tests.app.support import Asking, InlineDecoder, asking, b64, encoded
from tests.library.checkpoints import CHECKPOINTS, Tiny
from tests.library.reference import Answers, Numbers, Reference

SIZES = ((32, 32), (33, 33), (90, 40), (31, 100), (200, 150), (5, 7))
WORDS = ("x", "red", "dog", "a", "q", "red", "红", "b", "z")
CATALOG = """[profiles]
tiny = ["tiny"]
[models.tiny]
family = "{family}"
match = {{ checkpoint = "tiny" }}
"""


def blots(number: int, size: tuple[int, int]) -> Image.Image:
    """Unlike for each number."""
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)


PICTURES = [encoded(blots(number, size)) for number, size in enumerate(SIZES)]
IMAGES = [b64(data) for data in PICTURES]


@dataclass(slots=True)
class Lab:
    tiny: Tiny
    reference: Reference
    service: Asking
    texts: list[str]  # of one token to as many as there may be
    expected: Answers

    def say(self, path: str, **body: Any) -> Any:
        [answer] = self.service.ask(path, [body])
        return answer

    @property
    def too_long(self) -> str:
        return f"{self.texts[-1]} {self.texts[-1]}"


@contextmanager
def library_lab(name: str, folder: Path) -> Iterator[Lab]:
    tiny = CHECKPOINTS[name]
    tiny.write(folder / "tiny")
    (folder / "catalog.toml").write_text(CATALOG.format(family=tiny.family))
    reference = Reference(folder / "tiny", **tiny.tokenized)
    texts = some_texts(reference, tiny.limit)
    with asking("tiny", folder / "catalog.toml", make_decoder=lambda *_: InlineDecoder()) as service:
        yield Lab(tiny, reference, service, texts, reference.answers(PICTURES, texts))


def some_texts(reference: Reference, limit: int) -> list[str]:
    fewest = reference.num_tokens("x")
    return [_text_of(reference, number) for number in (fewest, fewest + 2, limit // 2, limit)]


def _text_of(reference: Reference, num_tokens: int) -> str:
    """Of so many tokens, or a little less where a word has several."""
    text = ""
    for word in cycle(WORDS):
        longer = f"{text} {word}".strip()
        if reference.num_tokens(longer) > num_tokens:
            return text
        text = longer
    raise AssertionError


def vectors(entries: Sequence[dict[str, Any]]) -> Numbers:
    return np.array([one["embedding"] for one in entries])


def furthest(ours: Any, theirs: Any) -> float:
    return float(np.abs(np.asarray(ours) - theirs).max())


def padded_badly(reader: TextReader, rows: list[list[int]], device: torch.device) -> dict[str, Any]:
    """In place of `TextReader.batch`: on the left, and only as far as the longest."""
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return {"input_ids": ids} | ({"attention_mask": mask} if reader.padding is Padding.MASKED else {})
