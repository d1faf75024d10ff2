"""How a family's texts become token ids."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.device import to_device
from models.families.family import RunnerParts
from models.runners.text import Tokenizer, pad, readable
from models.weights import CheckpointError

SENTENCE_PIECES = "spiece.model"
VOCABULARIES = ("vocab.txt", "vocab.json", SENTENCE_PIECES)


class Padding(Enum):
    """What texts of a batch get where they are shorter than the longest."""

    MASKED = "masked"  # anything: nobody looks at it
    FIXED = "fixed"  # every text has the limit's length, and the padding is read: it was trained so


@dataclass(frozen=True, slots=True)
class Texts:
    limit: int | None = None  # tokens; None: as many as the tokenizer's files and the position embeddings allow
    cut: bool = False  # longer texts are cut, as the authors do; else refused, as the authors do
    lower: bool = False  # in lower case, whatever the tokenizer's files say
    padding: Padding = Padding.MASKED


class TextReader:
    """Texts by a checkpoint's tokenizer."""

    def __init__(self, folder: Path, how: Texts, num_positions: int) -> None:
        """Raises CheckpointError if the files need what is not installed."""
        # Without it, the library would take a tokenizer.json beside it, which keeps punctuation.
        if (folder / SENTENCE_PIECES).is_file() and find_spec("sentencepiece") is None:
            raise CheckpointError("its tokenizer needs sentencepiece: install the extra `siglip`")
        self._tokenizer = Tokenizer(folder, *VOCABULARIES)
        self._how = how
        self.padding = how.padding
        self._before, self._after = self._tokenizer.around()
        self.num_tokens = len(self._tokenizer)
        self.limit = how.limit or min(num_positions, self._tokenizer.limit)

    def ids(self, text: str, role: str = "text") -> list[int]:
        """Raises InputError."""
        inner = self._tokenizer.pieces(text.lower() if self._how.lower else text)
        num_special = len(self._before) + len(self._after)
        if self._how.cut:
            inner = inner[: self.limit - num_special]
        return readable(role, [*self._before, *inner, *self._after], num_special, self.limit)

    def batch(self, rows: list[list[int]], device: torch.device) -> dict[str, Any]:
        """The arguments of the library's text encoder."""
        fill: int = self._tokenizer.fill_id
        if self.padding is Padding.MASKED:
            ids, mask = pad(rows, device, fill)
            return {"input_ids": ids, "attention_mask": mask.long()}
        return {"input_ids": to_device(self._filled(rows, fill), device)}

    def _filled(self, rows: list[list[int]], fill: int) -> Tensor:
        ids = torch.full((len(rows), self.limit), fill)
        for number, row in enumerate(rows):
            if self._tokenizer.fills_left:
                ids[number, -len(row) :] = torch.tensor(row)
            else:
                ids[number, : len(row)] = torch.tensor(row)
        return ids


def text_reader(parts: RunnerParts, how: Texts) -> TextReader:
    """By the tokenizer in a checkpoint's folder. Raises CheckpointError if it belongs to another checkpoint."""
    text = getattr(parts.config, "text_config", parts.config)
    reader = TextReader(parts.folder, how, text.max_position_embeddings)
    if reader.num_tokens > text.vocab_size:
        raise CheckpointError(f"the tokenizer has {reader.num_tokens} entries, the vocabulary {text.vocab_size}")
    return reader
