"""WordPiece text in and out, as BLIP and BLIP-2's Q-Former take it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer


class WordPiece:
    """A checkpoint's tokenizer. Safe to share between threads: it never truncates or pads inside the library."""

    def __init__(self, folder: Path) -> None:
        if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.txt")):
            raise FileNotFoundError("it has no tokenizer.json and no vocab.txt")
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.stop_id: int = self._tokenizer.sep_token_id
        self.first_id: int = self._tokenizer.cls_token_id

    def __len__(self) -> int:
        return len(self._tokenizer)

    def ids(self, text: str, first_id: int | None = None, limit: int | None = None) -> list[int]:
        """[first] tokens [SEP]; the first is [CLS] unless given; at most `limit` ids, cut before the [SEP]."""
        inner: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if limit is not None:
            inner = inner[: limit - 2]
        return [self.first_id if first_id is None else first_id, *inner, self.stop_id]

    def text(self, ids: Sequence[int]) -> str:
        """Decoded as the authors do, with BERT's clean-up of spaces before punctuation.

        A first piece may go on with the prompt's last word: theirs is decoded with the prompt, and then cut."""
        decoded: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True)
        return decoded.strip().removeprefix("##")


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy that does not stop the device: on CUDA from pinned memory, without waiting."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def pad(rows: Sequence[Sequence[int]], device: torch.device, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Token ids as one tensor `(rows, tokens)`, and its mask, true where there is a token."""
    length = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for number, row in enumerate(rows):
        place = slice(length - len(row), length) if left else slice(len(row))
        ids[number, place] = torch.tensor(row, dtype=torch.long)
        mask[number, place] = True
    return to_device(ids, device), to_device(mask, device)
