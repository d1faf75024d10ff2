"""Figures of a model in training, computed in process on pictures that are not trained on. (`evaluate.py` measures the
exported model through the service.)"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

import torch
from torch import Tensor

from training import vocabulary
from training.captions import SHORT_CAPTIONS, describe, entails, parse, random_caption, spoil
from training.data import normalise, stack, texts
from training.easyvqa import Example
from training.joint import Joined
from training.network import Answering, PreTraining, greedy
from training.questions import random_question
from training.scenes import Pixels, Scene, random_scene

Figures = dict[str, float]


def generated(name: str, number: int) -> list[tuple[Scene, Pixels]]:
    """Scenes of one, two and three shapes in turn; `name` seeds them."""
    rng = Random(name)
    return [random_scene(rng, 1 + index % 3) for index in range(number)]


def share(right: Sequence[bool]) -> float:
    return sum(right) / len(right)


class Seeing(Joined, Protocol):
    def see(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (n, 3, 64, 64) -> what the text looks at."""


def see(model: Seeing, pictures: Sequence[Pixels]) -> Tensor:
    return torch.cat([model.see(normalise(part)) for part in torch.split(stack(pictures), 100)])


def write(model: PreTraining, seen: Tensor) -> list[str]:
    """Greedy captions."""
    known = model.design.vocabulary
    given = torch.tensor([known.encode(vocabulary.PROMPT, known.dec_id)[:-1]])
    source = model.decoder.look_at(seen)
    lines = greedy(model.decoder, model.lm_head, source, given.expand(len(seen), -1), 16)
    return [known.spell(line) for line in lines]


@torch.no_grad()
def measure_captions(model: PreTraining, public: Sequence[Example], scenes: Sequence[tuple[Scene, Pixels]]) -> Figures:
    written = write(model, see(model, [example.pixels for example in public]))
    shapes = [example.scene.shapes[0] for example in public]
    pairs = list(zip(written, shapes, strict=True))
    figures = {
        "color": share([f" {shape.color} " in f" {text} " for text, shape in pairs]),
        "kind": share([f" {shape.kind} " in f" {text} " for text, shape in pairs]),
        "size": share([shape.size in text for text, shape in pairs]),
        "place": share([shape.position in text for text, shape in pairs]),
        "whole": share([text == str(describe(example.scene)) for text, example in zip(written, public, strict=True)]),
    }
    truths = [scene for scene, _ in scenes]
    written = write(model, see(model, [pixels for _, pixels in scenes]))
    for count in (1, 2, 3):
        chosen = [(t, s) for t, s in zip(written, truths, strict=True) if len(s.shapes) == count]
        figures[f"true{count}"] = share([entails(text, scene) for text, scene in chosen])
        figures[f"exact{count}"] = share([text == str(describe(scene)) for text, scene in chosen])
    return figures


@torch.no_grad()
def measure_matching(model: Seeing, public: Sequence[Example], scenes: Sequence[tuple[Scene, Pixels]]) -> Figures:
    """Which of the 24 short captions ITC and ITM choose; how often ITM tells true from nearly true."""
    seen = see(model, [example.pixels for example in public])
    asked = texts(SHORT_CAPTIONS)
    right = torch.tensor([SHORT_CAPTIONS.index(f"a {example.scene.shapes[0].name}") for example in public])
    similarity = model.similarity(seen, model.embed_texts(asked))
    source = model.look_at(seen)
    repeated = texts(SHORT_CAPTIONS * len(public))
    logits = model.match(source, repeated).view(len(public), len(SHORT_CAPTIONS), 2)
    rng = Random("measure matching")
    told = []
    for (scene, _), row in zip(scenes, see(model, [pixels for _, pixels in scenes]), strict=True):
        caption = random_caption(rng, scene)
        pair = texts([str(caption), str(spoil(rng, caption, scene) or parse("a gray shape"))])
        margins = model.match(model.look_at(row[None]), pair).diff(dim=-1)[:, 0]
        told.append((margins > 0).tolist() == [True, False])
    return {
        "itc24": float((similarity.argmax(1) == right).float().mean()),
        "itm24": float((logits.diff(dim=-1)[..., 0].argmax(1) == right).float().mean()),
        "itm_edit": share(told),
    }


@torch.no_grad()
def measure_answers(
    model: Answering, tower: PreTraining, public: Sequence[Example], scenes: Sequence[tuple[Scene, Pixels]]
) -> Figures:
    rng = Random("measure answers")
    asked = [(example.pixels, list(example.questions)) for example in public]
    made = [(pixels, [random_question(rng, scene) for _ in range(4)]) for scene, pixels in scenes]
    return {
        "vqa": share(answered(model, tower, asked)),
        "vqa_generated1": share(answered(model, tower, made[0::3])),
        "vqa_generated2": share(answered(model, tower, made[1::3])),
        "vqa_generated3": share(answered(model, tower, made[2::3])),
    }


def answered(model: Answering, tower: PreTraining, asked: list[tuple[Pixels, list[tuple[str, str]]]]) -> list[bool]:
    """Each question on its own copy of its picture's features, in chunks; right if the text is exactly the answer."""
    flat = [(number, question) for number, (_, questions) in enumerate(asked) for question in questions]
    seen = see(tower, [pixels for pixels, _ in asked])
    known = tower.design.vocabulary
    right = []
    for start in range(0, len(flat), 256):
        part = flat[start : start + 256]
        rows = seen[torch.tensor([number for number, _ in part])]
        source = model.read(rows, texts([text for _, (text, _) in part], known.enc_id, known))
        first = torch.full((len(part), 1), known.dec_id)
        lines = greedy(model.decoder, model.lm_head, source, first, 9)
        right += [known.spell(line) == answer for line, (_, (_, answer)) in zip(lines, part, strict=True)]
    return right
