"""Batches of training data. Batch `n` of a phase depends on the seed, the phase and `n` alone, so a run repeats
exactly however many worker processes draw its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training import vocabulary
from training.captions import SHORT_CAPTIONS, Caption, describe, parse, random_caption, spoil
from training.easyvqa import Example
from training.questions import random_question
from training.scenes import Pixels, Scene, random_scene
from training.vocabulary import SHAPES, Vocabulary

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class Texts:
    """`ids` (lines, tokens), padded on the right; `mask` is true at tokens."""

    ids: Tensor
    mask: Tensor

    def starting_with(self, first: int) -> Texts:
        ids = self.ids.clone()
        ids[:, 0] = first
        return Texts(ids, self.mask)

    def take(self, rows: Tensor) -> Texts:
        """The lines at `rows` (n,), no wider than the longest of them."""
        width = int(self.mask[rows].sum(1).max())
        return Texts(self.ids[rows, :width], self.mask[rows, :width])

    def by_length(self, num_owners: int, num_parts: int) -> list[Tensor]:
        """Row numbers, in parts of lines of similar length, with equally many lines of every owner in each part.

        The lines come owner by owner, equally many each, and stay in that order."""
        lengths = self.mask.sum(1).view(num_owners, -1)
        rows = lengths.argsort(dim=1, stable=True) + torch.arange(num_owners)[:, None] * lengths.shape[1]
        return [part.flatten() for part in rows.chunk(num_parts, 1)]


def texts(lines: Sequence[str], first: int = vocabulary.CLS, known: Vocabulary = SHAPES) -> Texts:
    encoded = [known.encode(line, first)[: vocabulary.MAX_TOKENS] for line in lines]
    ids = torch.full((len(encoded), max(map(len, encoded))), vocabulary.PAD)
    for row, line in zip(ids, encoded, strict=True):
        row[: len(line)] = torch.tensor(line)
    return Texts(ids, ids != vocabulary.PAD)


def normalise(pixels: Tensor) -> Tensor:
    """uint8 (n, side, side, 3) -> float (n, 3, side, side), as the image processor does."""
    return ((pixels.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2).contiguous()


def stack(pictures: Sequence[Pixels]) -> Tensor:
    return torch.from_numpy(np.stack(pictures))


@dataclass(frozen=True, slots=True)
class Mix:
    """How often a picture is a public one, how often it shows 1, 2 or 3 shapes otherwise, and how often the one shape
    must be a borderline case of size or position, which is what is learned last."""

    public: float
    counts: tuple[float, float, float]
    borderline: float = 0.0

    def draw(self, rng: Random, public: Sequence[Example]) -> tuple[Scene, Pixels]:
        if rng.random() < self.public:
            example = rng.choice(public)
            return example.scene, example.pixels
        count = rng.choices((1, 2, 3), self.counts)[0]
        must_be_borderline = count == 1 and self.borderline > 0 and rng.random() < self.borderline
        while True:
            scene, pixels = random_scene(rng, count)
            if scene.shapes[0].borderline or not must_be_borderline:
                return scene, pixels


@dataclass(frozen=True, slots=True)
class CaptionBatch:
    """Phase 1: pictures (n, 64, 64, 3) and a caption each, with the prompt, first id [DEC]."""

    pixels: Tensor
    captions: Texts


@dataclass(frozen=True, slots=True)
class JointTexts:
    """`captions` for the decoder; `said` is a true text a picture; `short` are short ones, the same in each batch;
    `true` (n, n + short) tells which of these are true of which picture; each of `spoilt` has a false text a picture,
    one word away from a true one."""

    captions: Texts
    said: Texts
    short: Texts
    true: Tensor
    spoilt: Sequence[Texts]


@dataclass(frozen=True, slots=True)
class JointBatch:
    """Phase 2: pictures (n, 64, 64, 3) and their texts."""

    pixels: Tensor
    texts: JointTexts


@dataclass(frozen=True, slots=True)
class QuestionBatch:
    """Phase 3: numbers of pictures in the pool (n,); q questions a picture, first id [ENC], answers, first id [DEC]."""

    pictures: Tensor
    questions: Texts
    answers: Texts


@cache
def _short_captions() -> tuple[Caption, ...]:
    parsed = tuple(parse(text) for text in SHORT_CAPTIONS)
    return tuple(caption for caption in parsed if caption is not None)


def prompted(scene: Scene) -> str:
    return vocabulary.PROMPT + str(describe(scene))


def _spoilt(rng: Random, caption: Caption, scene: Scene) -> Caption:
    while True:
        changed = spoil(rng, caption, scene)
        if changed is not None:
            return changed
        caption = random_caption(rng, scene)


def joint_texts(rng: Random, scenes: Sequence[Scene], captions: Sequence[str]) -> JointTexts:
    said = [random_caption(rng, scene) for scene in scenes]
    candidates = [*said, *_short_captions()]
    spoilt = [str(_spoilt(rng, caption, scene)) for caption, scene in zip(said, scenes, strict=True)]
    return JointTexts(
        texts(captions, SHAPES.dec_id),
        texts([str(caption) for caption in said]),
        texts(SHORT_CAPTIONS),
        torch.tensor([[caption.true_of(scene) for caption in candidates] for scene in scenes]),
        [texts(spoilt)],
    )


class CaptionBatches(Dataset[CaptionBatch]):
    def __init__(self, name: str, mix: Mix, public: Sequence[Example], num_pictures: int) -> None:
        self.name, self.mix, self.public, self.num_pictures = name, mix, public, num_pictures

    def __getitem__(self, index: int) -> CaptionBatch:
        rng = Random(f"{self.name} {index}")
        drawn = [self.mix.draw(rng, self.public) for _ in range(self.num_pictures)]
        captions = texts([prompted(scene) for scene, _ in drawn], SHAPES.dec_id)
        return CaptionBatch(stack([pixels for _, pixels in drawn]), captions)


class JointBatches(Dataset[JointBatch]):
    def __init__(self, name: str, mix: Mix, public: Sequence[Example], num_pictures: int) -> None:
        self.name, self.mix, self.public, self.num_pictures = name, mix, public, num_pictures

    def __getitem__(self, index: int) -> JointBatch:
        rng = Random(f"{self.name} {index}")
        drawn = [self.mix.draw(rng, self.public) for _ in range(self.num_pictures)]
        scenes = [scene for scene, _ in drawn]
        captions = [prompted(scene) for scene in scenes]
        return JointBatch(stack([pixels for _, pixels in drawn]), joint_texts(rng, scenes, captions))


class QuestionBatches(Dataset[QuestionBatch]):
    """Questions about a pool of pictures; `public[i]` holds the package's own questions of picture i, if it has any."""

    def __init__(
        self,
        name: str,
        scenes: Sequence[Scene],
        public: Sequence[Sequence[tuple[str, str]]],
        num_pictures: int,
        num_questions: int,
    ) -> None:
        self.name, self.scenes, self.public = name, scenes, public
        self.num_pictures, self.num_questions = num_pictures, num_questions

    def _ask(self, rng: Random, number: int) -> tuple[str, str]:
        known = self.public[number]
        return rng.choice(known) if known and rng.random() < 0.5 else random_question(rng, self.scenes[number])

    def __getitem__(self, index: int) -> QuestionBatch:
        rng = Random(f"{self.name} {index}")
        numbers = rng.sample(range(len(self.scenes)), self.num_pictures)
        asked = [self._ask(rng, number) for number in numbers for _ in range(self.num_questions)]
        return QuestionBatch(
            torch.tensor(numbers),
            texts([question for question, _ in asked], SHAPES.enc_id),
            texts([answer for _, answer in asked], SHAPES.dec_id),
        )


def loader(batches: Dataset[Batch], num_batches: int, first: int = 0) -> DataLoader[Batch]:
    """Batches `first`, ... drawn ahead by one worker process. Its seed is not of the generator that losses draw from,
    so that they draw the same after a break."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(first, num_batches),
        num_workers=1,
        prefetch_factor=16,
        generator=torch.Generator(),
    )
