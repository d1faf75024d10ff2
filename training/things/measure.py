"""Figures of the things demo in training, on scenes that are not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch

from training.data import stack
from training.measure import Figures, answered, see, share, write
from training.network import Answering, PreTraining
from training.scenes import Box
from training.things.captions import phrases_of, random_caption, spoil
from training.things.clip import Contrast, Detect, Segment
from training.things.data import Drawing, pixels_of
from training.things.questions import random_question, topic_of
from training.things.scenes import UNIT, Drawn, Mix, Scene
from training.things.tower import Taught
from training.things.words import Words

ONE, TWO = Mix((1, 0, 0)), Mix((0, 1, 0), equal=0)
TOPICS = ("what", "where", "how many", "color", "yes/no")


@dataclass(frozen=True, slots=True)
class Watched:
    """Scenes of one thing, and of two different ones."""

    one: Sequence[Drawn]
    two: Sequence[Drawn]

    @property
    def all(self) -> Sequence[Drawn]:
        return [*self.one, *self.two]


def watched(drawing: Drawing, number: int) -> Watched:
    """`number` of each."""
    rng = Random("watched")
    return Watched(drawing.draw(rng, ONE, number), drawing.draw(rng, TWO, number))


def names_all(text: str, scene: Scene, words: Words) -> bool:
    """Whether a caption names the things of the scene, all and no others."""
    caption = words.parser.parse(text)
    if caption is None:
        return False
    said = [phrase.noun.name for phrase in phrases_of(caption)]
    return sorted(said) == sorted(thing.noun.name for thing in scene.shapes)


def measure_tower(model: Taught, drawn: Sequence[Drawn], words: Words) -> Figures:
    """On scenes of one thing."""
    numbers = model.named(pixels_of(drawn)).tolist()
    names = [one.scene.shapes[0].noun.name for one in drawn]
    return {"named": share([words.numbers[name] == number for name, number in zip(names, numbers, strict=True)])}


@torch.no_grad()
def measure_captions(model: PreTraining, scenes: Watched, words: Words) -> Figures:
    figures = {}
    for name, drawn in (("one", scenes.one), ("two", scenes.two)):
        written = write(model, see(model, [one.pixels for one in drawn]))
        pairs = [(text, one.scene) for text, one in zip(written, drawn, strict=True)]
        figures[f"named_{name}"] = share([names_all(text, scene, words) for text, scene in pairs])
        figures[f"true_{name}"] = share([words.parser.entails(text, scene) for text, scene in pairs])
    return figures


@torch.no_grad()
def measure_matching(model: PreTraining, scenes: Watched, words: Words) -> Figures:
    """Which of all things ITC chooses for one; how often ITM likes a true text better than a nearly true one."""
    seen = see(model, [one.pixels for one in scenes.one])
    chosen = model.similarity(seen, model.embed_texts(words.texts(words.short))).argmax(1).tolist()
    right = [words.numbers[one.scene.shapes[0].noun.name] for one in scenes.one]
    rng, told = Random("measure matching"), []
    for one, row in zip(scenes.all, see(model, [one.pixels for one in scenes.all]), strict=True):
        caption = random_caption(rng, one.scene)
        pair = words.texts([str(caption), str(spoil(rng, caption, one.scene, words.nouns))])
        true, false = model.match(model.look_at(row[None]), pair).diff(dim=-1)[:, 0].tolist()
        told.append(true > false)
    return {"itc": share([a == b for a, b in zip(chosen, right, strict=True)]), "itm_edit": share(told)}


@torch.no_grad()
def measure_answers(model: Answering, tower: PreTraining, scenes: Watched, words: Words) -> Figures:
    rng = Random("measure answers")
    asked = [(one.pixels, [random_question(rng, one.scene, words.nouns) for _ in range(4)]) for one in scenes.all]
    topics = [topic_of(question) for _, questions in asked for question, _ in questions]
    right = list(zip(topics, answered(model, tower, asked), strict=True))
    figures = {}
    for topic in TOPICS:
        found = [is_right for one, is_right in right if one == topic]
        figures[topic] = share(found) if found else 0.0
    return figures


def features(model: PreTraining, drawn: Sequence[Drawn]) -> torch.Tensor:
    """What the tower makes of each picture, once: (pictures, tokens, width), half."""
    with torch.no_grad():
        parts = torch.split(stack([one.pixels for one in drawn]), 200)
        return torch.cat([see(model, list(part.numpy())).half() for part in parts])


@torch.no_grad()
def measure_contrast(model: Contrast, drawn: Sequence[Drawn], words: Words) -> Figures:
    """On scenes of one thing: which of all things CLIP chooses."""
    chosen = model.similarity(pixels_of(drawn), words.pooled_texts(words.short))[:, 0].argmax(1).tolist()
    right = [words.numbers[one.scene.shapes[0].noun.name] for one in drawn]
    return {"clip": share([a == b for a, b in zip(chosen, right, strict=True)])}


@torch.no_grad()
def measure_segment(model: Segment, drawn: Sequence[Drawn], words: Words) -> Figures:
    """The mean overlap (intersection over union) of the left thing's mask with what is cut out for its name."""
    lines = words.pooled_texts([one.scene.shapes[0].noun.one() for one in drawn])
    found = model.maps(pixels_of(drawn), lines) > 0
    true = torch.stack([torch.from_numpy(one.owners == 1) for one in drawn])
    return {"iou": float(((found & true).sum((1, 2)) / (found | true).sum((1, 2)).clamp(min=1)).mean())}


@torch.no_grad()
def measure_detect(model: Detect, drawn: Sequence[Drawn], words: Words) -> Figures:
    """How often the most likely box for the left thing's name overlaps it by half."""
    logits, boxes = model.found(pixels_of(drawn), words.pooled_texts(words.short))
    told = []
    for one, scores, places in zip(drawn, logits, boxes, strict=True):
        (thing, *_) = one.scene.shapes
        x, y, width, height = (UNIT * places[scores[:, words.numbers[thing.noun.name]].argmax()]).tolist()
        told.append(overlap(thing.box, Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)) >= 0.5)
    return {"found": share(told)}


def overlap(box: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(box.right, other.right) - max(box.left, other.left)
    height = min(box.bottom, other.bottom) - max(box.top, other.top)
    both = max(0.0, width) * max(0.0, height)
    areas = [(one.right - one.left) * (one.bottom - one.top) for one in (box, other)]
    return both / max(sum(areas) - both, 1e-6)
