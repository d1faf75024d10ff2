"""Text in and out: tokenizers, token ids as tensors, and texts grouped by the image that they are about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor
from transformers import AutoTokenizer

from models.base import InputError, Item
from models.device import to_device
from models.layers.attention import Lines
from models.outputs import Video

T = TypeVar("T")


class Tokenizer:
    """A checkpoint's tokenizer. Safe to share between threads: it never truncates or pads inside the library."""

    def __init__(self, folder: Path, *vocabularies: str) -> None:
        """`vocabularies`: files that can replace tokenizer.json. Raises FileNotFoundError if none is there."""
        files = ("tokenizer.json", *vocabularies)
        if not any((folder / file).is_file() for file in files):
            raise FileNotFoundError("it has " + " and ".join(f"no {file}" for file in files))
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def __len__(self) -> int:
        return len(self._tokenizer)

    @property
    def limit(self) -> int:
        """How many ids its files say that a text may have; a huge number where they do not."""
        limit: int = self._tokenizer.model_max_length
        return limit

    @property
    def fill_id(self) -> int:
        """Where a text is shorter than others; 0 where its files name none."""
        return self._tokenizer.pad_token_id or 0

    @property
    def fills_left(self) -> bool:
        return bool(self._tokenizer.padding_side == "left")

    def around(self) -> tuple[list[int], list[int]]:
        """The special ids before and after a text."""
        whole, inner = self._tokenizer("a")["input_ids"], self.pieces("a")
        starts = range(len(whole) - len(inner) + 1)
        start = next(one for one in starts if whole[one : one + len(inner)] == inner)
        return whole[:start], whole[start + len(inner) :]

    def pieces(self, text: str) -> list[int]:
        """The ids of `text` alone."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def names(self, ids: Sequence[int]) -> tuple[str, ...]:
        """As the vocabulary has them."""
        return tuple(self._tokenizer.convert_ids_to_tokens(list(ids)))

    def text(self, ids: Sequence[int]) -> str:
        """Decoded as by the authors, whose libraries remove spaces before punctuation for every tokenizer."""
        decoded = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        cleaned: str = self._tokenizer.clean_up_tokenization(decoded)
        return cleaned.strip()

    def settled(self, ids: Sequence[int]) -> str:
        """The part of the text that no further token changes: without its last word, which may go on, or be half a
        character; without the last two where an apostrophe ends it, which may join the word before ("do n ' t")."""
        before, _, last = self.text(ids).rpartition(" ")
        return before.rpartition(" ")[0] if last == "'" else before


class WordPiece(Tokenizer):
    """BERT's tokenizer, as used by BLIP and BLIP-2's Q-Former."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "vocab.txt")
        self.stop_id: int = self._tokenizer.sep_token_id
        self.first_id: int = self._tokenizer.cls_token_id

    def ids(self, text: str, first_id: int | None = None, limit: int | None = None) -> list[int]:
        """[first] tokens [SEP]; the first is [CLS] unless given; at most `limit` ids, cut before the [SEP]."""
        inner = self.pieces(text)
        if limit is not None:
            inner = inner[: limit - 2]
        return [self.first_id if first_id is None else first_id, *inner, self.stop_id]

    def text(self, ids: Sequence[int]) -> str:
        """The first piece may continue the prompt's last word: the authors decode both, and then cut the prompt off."""
        return super().text(ids).removeprefix("##")


def readable(role: str, ids: list[int], num_special: int, limit: int) -> list[int]:
    """Returns `ids`. Raises InputError if all of them are special, or if there are more than `limit`."""
    if len(ids) == num_special:
        raise InputError(f"{role}: has no character that the model reads")
    if len(ids) > limit:
        raise InputError(f"{role}: has {len(ids)} tokens, at most {limit} are allowed")
    return ids


def pad(rows: Sequence[Sequence[int]], device: torch.device, fill: int = 0) -> tuple[Tensor, Tensor]:
    """Token ids as one tensor `(rows, tokens)`, padded on the right, and its mask, true where there is a token."""
    length = max(len(row) for row in rows)
    ids = torch.full((len(rows), length), fill, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, : len(row)] = True
    return to_device(ids, device), to_device(mask, device)


def _frames(item: Item) -> tuple[Tensor, ...]:
    """Of an image that is no video: itself."""
    features = item.features
    return cast("tuple[Tensor, ...]", features.frames if isinstance(features, Video) else (features,))


class ImageGroups:
    """The items of a batch, grouped by image: each distinct image is projected once, and the texts about it are query
    positions of one attention call.

    `frames`: of each distinct image its features, of a video those of its frames. `images`: the same, `(images, tokens,
    width)`; a video's frames one after the other. `num_frames`: of each; 1 unless they are videos. `numbers`: the index
    of each item's image. `lines`: the items of each image, in the order of `sort`."""

    def __init__(self, batch: Sequence[Item]) -> None:
        distinct = {id(item.features): _frames(item) for item in batch}
        places = {key: number for number, key in enumerate(distinct)}
        self.frames = list(distinct.values())
        self.images = torch.stack([torch.cat(frames) if len(frames) > 1 else frames[0] for frames in self.frames])
        (self.num_frames,) = set(map(len, self.frames))
        self.numbers = [places[id(item.features)] for item in batch]
        counts = [self.numbers.count(number) for number in range(len(distinct))]
        self.lines = Lines.of(counts, self.images.device)
        order = sorted(range(len(batch)), key=self.numbers.__getitem__)
        self.order = torch.tensor(order)  # of `sort`: the index of each row's item
        self._back = self.order.argsort()

    def sort(self, rows: Sequence[T]) -> list[T]:
        """Reorder rows, one for each item, so that those of one image are side by side."""
        return [rows[index] for index in self.order.tolist()]

    def unsort(self, lines: Tensor) -> Tensor:
        """From the order of `sort` back to that of the batch."""
        return lines[self._back.to(lines.device)]
