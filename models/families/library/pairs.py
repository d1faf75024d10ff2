"""Families in which a picture and a text are one sequence from the first layer on: nothing but the patches can be kept
of a picture alone, and every question is a pass of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import Capabilities, InputError, Item, ModelRunner, Op, Task
from models.device import on_device
from models.families.family import Family, RunnerParts
from models.families.library import parts
from models.families.library.networks import LibraryNetworks
from models.families.library.texts import Texts, text_reader
from models.framing import Fit
from models.inputs import Input, PairInput, RankInput
from models.layers.tower import Tower
from models.outputs import Scores, Video
from models.runners.unit import HeadsRunner
from models.weights import CheckpointError


@dataclass(frozen=True, slots=True)
class Pairing:
    """What a family states. Classes and parts go by their names in transformers."""

    config: str
    architectures: Mapping[Task, str]  # in config.json
    image_processor: str  # where preprocessor_config.json names none
    texts: Texts
    model: str  # the part that reads pairs
    heads: Mapping[Task, str]  # what reads its pooled output
    each: bool = True  # an answer is probable or not by itself, whatever the others are; else one of them is right


class PatchTower(Tower):
    """Patches with their positions: what does not depend on the text."""

    def __init__(self, part: Any) -> None:
        super().__init__()
        self.config = part.config
        self.part = part

    def forward(self, pixels: Tensor) -> Tensor:
        """-> `(images, 1 + patches, width)`, as `visual_embed` makes them of a picture without padding."""
        patches = self.part.patch_embeddings(pixels)
        places = self.part.position_embeddings
        side = isqrt(places.shape[1] - 1)
        grid = places[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        spread = F.interpolate(grid, patches.shape[2:], mode="bilinear", align_corners=True)
        first = (self.part.cls_token + places[:, :1]).expand(len(pixels), -1, -1)
        return torch.cat([first, (patches + spread).flatten(2).transpose(1, 2)], dim=1)


class _Networks(LibraryNetworks):
    fits = frozenset({Fit.WHOLE, Fit.SQUEEZE})

    def __init__(self, stated: Pairing) -> None:
        super().__init__(stated.config, stated.architectures, stated.image_processor)
        self._stated = stated

    def check(self, _: Task, config: Any, /) -> None:
        """Raises CheckpointError: it would look at patches drawn by lot."""
        if config.max_image_length > 0:
            raise CheckpointError(
                f"max_image_length is {config.max_image_length}; only pictures as a whole are supported"
            )

    def image_size(self, _: Any, /) -> None:
        """Any: position embeddings are interpolated."""

    def build_tower(self, config: Any, /) -> Tower:
        embeddings: Any = parts.taken_out(self.whole(config), f"{self._stated.model}.embeddings")
        for of_texts in ("text_embeddings", "token_type_embeddings"):
            parts.taken_out(embeddings, of_texts)
        return PatchTower(embeddings)

    def build(self, task: Task, config: Any, /) -> nn.Module:
        network: nn.Module = self.whole(config, task)
        embeddings = network.get_submodule(f"{self._stated.model}.embeddings")
        for of_pictures in ("patch_embeddings", "cls_token", "position_embeddings"):
            delattr(embeddings, of_pictures)
        return network

    def set_dtypes(self, module: nn.Module, dtype: torch.dtype, /) -> None:
        """All but the head is the tower's kind of work."""
        super().set_dtypes(module, dtype)
        if not isinstance(module, Tower):
            module.get_submodule(self._stated.model).to(dtype)

    def tower_names(self) -> dict[str, str]:
        return {"part": f"{self._stated.model}.embeddings"}


class PairRunner(HeadsRunner):
    """Answers and matches. The payload is the text's ids, and which answers are asked for; None: all."""

    def __init__(self, parts: RunnerParts, stated: Pairing) -> None:
        """Raises CheckpointError if the tokenizer belongs to another checkpoint."""
        labels = parts.config.id2label
        answers = tuple(labels[number] for number in sorted(labels)) if parts.task is Task.VQA else ()
        capabilities = Capabilities(heads=("itm",), answers=answers, num_images=max(1, parts.config.num_images))
        super().__init__(parts.unit, parts.network, parts.device, capabilities)
        self._texts = text_reader(parts, stated.texts)
        self._model = parts.network.get_submodule(stated.model)
        self._head = parts.network.get_submodule(stated.heads[parts.task])
        self._each = stated.each
        self._places = {answer: place for place, answer in enumerate(answers)}

    def prepare(self, request: Input) -> Item:
        match request:
            case RankInput(question, candidates):
                ids = self._texts.ids(question, "question")
                places = [self._place(one) for one in candidates]
                return Item(Op.SCORE, "answers", (ids, places or None), num_prompt_tokens=len(ids))
            case PairInput(text):
                ids = self._texts.ids(text)
                return Item(Op.SCORE, "itm", (ids, None), num_prompt_tokens=len(ids))
            case _:
                raise self._unsupported(request)

    def _place(self, answer: str) -> int:
        if answer not in self._places:
            raise InputError(f"candidates: {answer[:64]!r} is none of the {len(self._places)} answers that it knows")
        return self._places[answer]

    @on_device
    def score(self, batch: Sequence[Item]) -> list[Scores]:
        texts = self._texts.batch([item.payload[0] for item in batch], self._device)
        shown = zip(*(_images(item) for item in batch), strict=True)  # the first of each, the second of each
        pooled = [self._pooled(texts, images, number) for number, images in enumerate(shown)]
        logits = self._head(torch.cat(pooled, dim=-1).float())
        if batch[0].key == "itm":
            return list(F.pad(logits, (1, 0)).cpu().numpy())  # no match is 0: it knows one logit alone
        rows = (logits.sigmoid() if self._each else logits.softmax(-1)).cpu().numpy()
        return [row if item.payload[1] is None else row[item.payload[1]] for row, item in zip(rows, batch, strict=True)]

    def _pooled(self, texts: Mapping[str, Any], images: Sequence[Tensor], number: int) -> Tensor:
        """`(items, width)`, of the images of this number."""
        patches = nn.utils.rnn.pad_sequence(list(images), batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(one[:, 0]) for one in images], batch_first=True)
        output = self._model(**texts, image_embeds=patches, pixel_mask=mask.long(), image_token_type_idx=number + 1)
        return output.pooler_output


def _images(item: Item) -> tuple[Tensor, ...]:
    features = item.features
    return cast("tuple[Tensor, ...]", features.frames if isinstance(features, Video) else (features,))


def pairing(stated: Pairing) -> Family:
    networks = _Networks(stated)

    def make_runner(parts: RunnerParts, /) -> ModelRunner:
        return PairRunner(parts, stated)

    return Family(networks, make_runner, takes_template=False, canonical=networks.canonical)
