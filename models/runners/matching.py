"""What the matching runners of all families share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.base import Capabilities, Item, Op
from models.device import on_device
from models.inputs import ImageEmbeddingInput, Input, PairInput, StatesInput, TextInput
from models.outputs import Scores
from models.runners.text import WordPiece, pad, readable
from models.runners.unit import HeadsRunner


class MatchingRunner(HeadsRunner):
    """ITM logits, ITC embeddings, and the states before their projections. The payload of a text is its ids; of an
    image, its pooling."""

    text_tokens: int  # longer texts are cut, as the authors do

    def __init__(
        self, unit: str, network: Any, tokenizer: WordPiece, device: torch.device, capabilities: Capabilities
    ) -> None:
        """`capabilities`: without the dimensions."""
        dimensions = network.text_projection.out_features
        super().__init__(unit, network, device, replace(capabilities, dimensions=dimensions, keeps=True))
        self._tokenizer = tokenizer
        self._pair_id = tokenizer.first_id  # the first token of image-grounded texts

    def prepare(self, request: Input) -> Item:
        match request:
            case PairInput(text):
                return self._item("itm", self._text(text, self._pair_id))
            case TextInput(text):
                return self._item("text", self._text(text, self._tokenizer.first_id))
            case ImageEmbeddingInput(pooling):
                return Item(Op.SCORE, "image", pooling)
            case StatesInput(space, text, pooling):
                first_id = self._pair_id if space == "multimodal" else self._tokenizer.first_id
                return Item(Op.SCORE, (space, pooling), None if text is None else self._text(text, first_id))
            case _:
                raise self._unsupported(request)

    def _item(self, key: str, ids: list[int]) -> Item:
        return Item(Op.SCORE, key, ids, num_prompt_tokens=len(ids))

    def _text(self, text: str, first_id: int) -> list[int]:
        return readable("text", self._tokenizer.ids(text, first_id, self.text_tokens), 2, self.text_tokens)

    @on_device
    def score(self, batch: Sequence[Item]) -> list[Scores]:
        match batch[0].key:
            case "itm":
                return list(self._itm(batch).cpu().numpy())
            case "text":
                states = self._text_states(*self._padded(batch))[:, :1]
                return list(F.normalize(self.network.text_projection(states), dim=-1).cpu().numpy())
            case "image":
                vectors = F.normalize(self.network.image_projection(self._image_states(batch)), dim=-1).cpu()
                return [_pooled(own, item.payload).numpy() for own, item in zip(vectors, batch, strict=True)]
            case (str(space), str(pooling)):
                return list(self._states(batch, space, pooling).cpu().numpy())
            case key:
                raise ValueError(key)

    def _padded(self, batch: Sequence[Item]) -> tuple[Tensor, Tensor]:
        return pad([item.payload for item in batch], self._device)

    def _states(self, batch: Sequence[Item], space: str, pooling: str) -> Tensor:
        """As `StatesInput` says: `(items, vectors, width)`, float32."""
        mask: Tensor | None = None
        match space:
            case "text":
                ids, mask = self._padded(batch)
                states = self._text_states(ids, mask)
            case "multimodal":
                states, mask = self._pair_states(batch)
            case _:
                states = self._image_tokens(batch)
        states = states.float()
        if pooling != "mean":
            return states if self.capabilities.pooling and space != "text" else states[:, :1]
        if mask is None:
            return states.mean(1, keepdim=True)
        return (states * mask[..., None]).sum(1, keepdim=True) / mask.sum(1)[:, None, None]

    @abstractmethod
    def _itm(self, batch: Sequence[Item]) -> Tensor:
        """Logits `(pairs, 2)`."""

    @abstractmethod
    def _pair_states(self, batch: Sequence[Item]) -> tuple[Tensor, Tensor | None]:
        """What ITM reads of texts that look at their images, `(pairs, tokens or queries, width)`, and the mask of
        padding; None: there is none."""

    @abstractmethod
    def _text_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """`(texts, tokens)` -> `(texts, tokens, width)`, without an image."""

    @abstractmethod
    def _image_tokens(self, batch: Sequence[Item]) -> Tensor:
        """`(images, tokens or queries, width)`."""

    @abstractmethod
    def _image_states(self, batch: Sequence[Item]) -> Tensor:
        """The states that become embeddings, `(images, vectors, width)`."""


def _pooled(vectors: Tensor, pooling: str) -> Tensor:
    """Unit vectors `(vectors, dimensions)`; for `mean`, their mean as a unit vector `(1, dimensions)`."""
    return F.normalize(vectors.mean(0, keepdim=True), dim=-1) if pooling == "mean" else vectors
