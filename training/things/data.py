"""Batches of scenes of things. Batch `n` of a phase depends on the seed, the phase and `n` alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from training import vocabulary
from training.captions import Caption
from training.data import Batch, JointBatch, JointTexts, QuestionBatch, Texts, stack
from training.questions import Question
from training.things.captions import describe, random_caption, short_caption, spoil
from training.things.names import unlike
from training.things.questions import random_question, whole_question
from training.things.scenes import UNIT, Drawn, Mix, Scene, Sprites, random_scene
from training.things.words import Words

COVERED, TOUCHED = 0.3, 0.1  # from how much of it on a patch is a thing's; and no longer the ground's
UNTOLD = -1  # a patch that is neither


@dataclass(frozen=True, slots=True)
class Drawing:
    """What a phase draws from. `side`: of a picture; `patch`: of the tower's patches, both in pixels."""

    words: Words
    sprites: Sprites
    side: int
    patch: int

    def draw(self, rng: Random, mix: Mix, number: int) -> list[Drawn]:
        return [random_scene(rng, self.sprites, mix, self.side) for _ in range(number)]


class SceneBatches(Dataset[Batch], ABC):
    def __init__(self, name: str, drawing: Drawing, mix: Mix, num_pictures: int) -> None:
        self.name, self.drawing, self.mix, self.num_pictures = name, drawing, mix, num_pictures

    def __getitem__(self, index: int) -> Batch:
        rng = Random(f"{self.name} {index}")
        return self.batch(rng, self.drawing.draw(rng, self.mix, self.num_pictures))

    @abstractmethod
    def batch(self, rng: Random, drawn: Sequence[Drawn]) -> Batch: ...


@dataclass(frozen=True, slots=True)
class TowerBatch:
    """Pictures (n, side, side, 3). `things` (n, names): the share of each among those of the picture. `patches`
    (n, patches): 0 the ground, from 1 the thing's number, or UNTOLD."""

    pixels: Tensor
    things: Tensor
    patches: Tensor


class TowerBatches(SceneBatches[TowerBatch]):
    def batch(self, _: Random, drawn: Sequence[Drawn]) -> TowerBatch:
        return tower_batch(drawn, self.drawing)


def tower_batch(drawn: Sequence[Drawn], drawing: Drawing) -> TowerBatch:
    shown = shown_in([one.scene for one in drawn], drawing.words).float()
    return TowerBatch(pixels_of(drawn), shown / shown.sum(1, keepdim=True), patches_of(drawn, drawing))


def pixels_of(drawn: Sequence[Drawn]) -> Tensor:
    return stack([one.pixels for one in drawn])


def patch_cells(drawn: Drawn, patch: int) -> NDArray[np.uint8]:
    """The owners of each patch's pixels: (patches, patch * patch)."""
    side = len(drawn.owners) // patch
    cells = drawn.owners.reshape(side, patch, side, patch).transpose(0, 2, 1, 3)
    return cells.reshape(side * side, patch * patch)


def patches_of(drawn: Sequence[Drawn], drawing: Drawing) -> Tensor:
    """As TowerBatch.patches."""
    return torch.stack([patch_owners(one, drawing.patch, drawing.words.numbers) for one in drawn])


def patch_owners(drawn: Drawn, patch: int, numbers: dict[str, int]) -> Tensor:
    """As TowerBatch.patches, of one picture: (patches,)."""
    cells = patch_cells(drawn, patch)
    owners = np.where((cells > 0).mean(1) > TOUCHED, UNTOLD, 0)
    number = 0
    for thing in drawn.scene.shapes:
        for _ in thing.boxes:
            number += 1
            owners[(cells == number).mean(1) >= COVERED] = numbers[thing.noun.name] + 1
    return torch.from_numpy(owners)


def prompted(scene: Scene) -> str:
    return vocabulary.PROMPT + str(describe(scene))


@dataclass(frozen=True, slots=True)
class TaughtCaptions:
    """`taught`: pictures, and what the tower learns of them. A caption each, with the prompt, first id [DEC]."""

    taught: TowerBatch
    captions: Texts


class CaptionBatches(SceneBatches[TaughtCaptions]):
    def batch(self, _: Random, drawn: Sequence[Drawn]) -> TaughtCaptions:
        words = self.drawing.words
        captions = words.texts([prompted(one.scene) for one in drawn], words.vocabulary.dec_id)
        return TaughtCaptions(tower_batch(drawn, self.drawing), captions)


class JointBatches(SceneBatches[JointBatch]):
    def batch(self, rng: Random, drawn: Sequence[Drawn]) -> JointBatch:
        scenes = [one.scene for one in drawn]
        said = [random_caption(rng, scene) for scene in scenes]
        return JointBatch(pixels_of(drawn), joint_texts(rng, scenes, said, self.drawing.words))


def joint_texts(rng: Random, scenes: Sequence[Scene], said: Sequence[Caption], words: Words) -> JointTexts:
    """`said`: a true caption of each scene. The short texts are those of the things one by one: true where there is
    one, with others or without. Of the two false texts a picture the second names the things that are there: without
    it, ITM learns their names alone."""
    pairs = list(zip(said, scenes, strict=True))
    spoilt = [[str(spoil(rng, *pair, words.nouns, keeps)) for pair in pairs] for keeps in (False, True)]
    return JointTexts(
        words.texts([prompted(scene) for scene in scenes], words.vocabulary.dec_id),
        words.texts([str(caption) for caption in said]),
        words.texts(words.short),
        torch.cat([said_of(scenes, said), shown_in(scenes, words)], 1),
        [words.texts(lines) for lines in spoilt],
    )


def said_of(scenes: Sequence[Scene], captions: Sequence[Caption]) -> Tensor:
    """Which captions are true of which scene: (scenes, captions)."""
    return torch.tensor([[caption.true_of(scene) for caption in captions] for scene in scenes])


def shown_in(scenes: Sequence[Scene], words: Words) -> Tensor:
    """Which things are in which scene: (scenes, names)."""
    shown = torch.zeros(len(scenes), len(words.nouns), dtype=torch.bool)
    for row, scene in zip(shown, scenes, strict=True):
        for thing in scene.shapes:
            row[words.numbers[thing.noun.name]] = True
    return shown


@dataclass(frozen=True, slots=True)
class MatchBatch:
    """Numbers of pictures in the pool (n,), and their texts."""

    pictures: Tensor
    texts: JointTexts


class MatchBatches(Dataset[MatchBatch]):
    """Texts of a pool of pictures. Half of the true ones name one thing alone, as most do that ITC finds likely: else
    ITM learns that what names one thing of several is false."""

    def __init__(self, name: str, scenes: Sequence[Scene], words: Words, num_pictures: int) -> None:
        self.name, self.scenes, self.words, self.num_pictures = name, scenes, words, num_pictures

    def __getitem__(self, index: int) -> MatchBatch:
        rng = Random(f"{self.name} {index}")
        numbers = rng.sample(range(len(self.scenes)), self.num_pictures)
        scenes = [self.scenes[number] for number in numbers]
        said = [short_caption(rng, scene) if rng.random() < 0.5 else random_caption(rng, scene) for scene in scenes]
        return MatchBatch(torch.tensor(numbers), joint_texts(rng, scenes, said, self.words))


class QuestionBatches(Dataset[QuestionBatch]):
    """Questions about a pool of pictures: of each so many of any kind, and so many about the whole of it."""

    def __init__(
        self,
        name: str,
        scenes: Sequence[Scene],
        words: Words,
        num_pictures: int,
        num_questions: int,
        num_whole: int,
    ) -> None:
        self.name, self.scenes, self.words = name, scenes, words
        self.num_pictures, self.num_questions, self.num_whole = num_pictures, num_questions, num_whole

    def __getitem__(self, index: int) -> QuestionBatch:
        rng, words = Random(f"{self.name} {index}"), self.words
        numbers = rng.sample(range(len(self.scenes)), self.num_pictures)
        asked: list[Question] = []
        for scene in (self.scenes[number] for number in numbers):
            asked += [random_question(rng, scene, words.nouns) for _ in range(self.num_questions)]
            asked += [whole_question(rng, scene) for _ in range(self.num_whole)]
        return QuestionBatch(
            torch.tensor(numbers),
            words.texts([question for question, _ in asked], words.vocabulary.enc_id),
            words.texts([answer for _, answer in asked], words.vocabulary.dec_id),
        )


@dataclass(frozen=True, slots=True)
class RegionBatch:
    """Pictures, and a text each. `masks` (n, side, side), 1 where the text's thing is. `boxes` (n, patches, 4): centre
    and size of the thing on each patch, as shares of the side, 0 where `patches` has none."""

    pixels: Tensor
    texts: Texts
    masks: Tensor
    patches: Tensor
    boxes: Tensor


class RegionBatches(SceneBatches[RegionBatch]):
    """Every fourth text names what is not there."""

    def batch(self, rng: Random, drawn: Sequence[Drawn]) -> RegionBatch:
        words, lines, masks = self.drawing.words, [], []
        for one in drawn:
            first = rng.randrange(len(one.scene.shapes))
            thing, before = one.scene.shapes[first], sum(other.count for other in one.scene.shapes[:first])
            mask = (one.owners > before) & (one.owners <= before + thing.count)
            noun = thing.noun
            if rng.random() < 0.25:
                noun = rng.choice(unlike(words.nouns, [other.noun.name for other in one.scene.shapes]))
                mask = np.zeros_like(mask)
            lines.append(noun.one() if rng.random() < 0.5 else noun.name)
            masks.append(torch.from_numpy(mask))
        patches = patches_of(drawn, self.drawing)
        boxes = torch.stack([patch_boxes(one, self.drawing.patch) for one in drawn])
        return RegionBatch(pixels_of(drawn), words.pooled_texts(lines), torch.stack(masks).float(), patches, boxes)


def patch_boxes(drawn: Drawn, patch: int) -> Tensor:
    """As RegionBatch.boxes, of one picture: (patches, 4)."""
    cells = patch_cells(drawn, patch)
    boxes = torch.zeros(len(cells), 4)
    for number, box in enumerate((box for thing in drawn.scene.shapes for box in thing.boxes), start=1):
        x, y = box.center
        place = torch.tensor([x, y, box.right - box.left, box.bottom - box.top]) / UNIT
        boxes[torch.from_numpy((cells == number).mean(1) >= COVERED)] = place
    return boxes
