"""Figures of the demo's BLIP-2 in training, on pictures that are not trained on, written greedily."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import torch
from torch import Tensor

from models.families.blip2.opt import OPT
from training.blip2.language import Speller, write
from training.blip2.network import Speaking
from training.blip2.texts import prompt
from training.captions import describe, entails
from training.data import normalise, stack
from training.dialogues import needing_the_turn_before
from training.easyvqa import Example
from training.measure import Figures, share
from training.questions import Question, random_question
from training.scenes import Pixels, Scene

Picture = tuple[Scene, Pixels]
Tell = Callable[[Sequence[Picture]], Tensor]  # what the language model reads before the text: (n, queries, width)


@torch.no_grad()
def measure_language(model: OPT, speller: Speller, public: Sequence[Example], watched: Sequence[Picture]) -> Figures:
    def tell(pictures: Sequence[Picture]) -> Tensor:
        return model.tokens(torch.tensor([speller.described(scene) for scene, _ in pictures]))

    return _measure(model, speller, tell, public, watched)


@torch.no_grad()
def measure_speaking(
    model: Speaking, speller: Speller, public: Sequence[Example], watched: Sequence[Picture]
) -> Figures:
    def tell(pictures: Sequence[Picture]) -> Tensor:
        return model.tell(model.tower(normalise(stack([pixels for _, pixels in pictures]))))

    return _measure(model.language_model, speller, tell, public, watched)


def _measure(
    model: OPT, speller: Speller, tell: Tell, public: Sequence[Example], watched: Sequence[Picture]
) -> Figures:
    rng = Random("measure answers")
    known = [(example.scene, example.pixels) for example in public]
    asked = [(number, (), question) for number, example in enumerate(public) for question in example.questions[:4]]
    figures = {"vqa": share(_answered(model, speller, tell(known), asked))}
    captions = write(model, speller, tell(known), [""] * len(known), 29)
    pairs = list(zip(captions, known, strict=True))
    figures["color_kind"] = share([f" {scene.shapes[0].name} " in f" {text} " for text, (scene, _) in pairs])
    figures["whole"] = share([text == str(describe(scene)) for text, (scene, _) in pairs])
    told = tell(watched)
    captions = write(model, speller, told, [""] * len(watched), 29)
    figures["true"] = share([entails(text, scene) for text, (scene, _) in zip(captions, watched, strict=True)])
    made = [(n, (), random_question(rng, scene)) for n, (scene, _) in enumerate(watched) for _ in range(3)]
    right = _answered(model, speller, told, made)
    figures |= {
        f"vqa{count}": share([r for r, m in zip(right, made, strict=True) if m[0] % 3 == count - 1])
        for count in (1, 2, 3)
    }
    talks = [(n, talk) for n, (scene, _) in enumerate(watched) if (talk := needing_the_turn_before(rng, scene))]
    figures["third_turn"] = share(_answered(model, speller, told, [(n, tuple(talk[:2]), talk[2]) for n, talk in talks]))
    return figures


def _answered(
    model: OPT, speller: Speller, told: Tensor, asked: Sequence[tuple[int, Sequence[Question], Question]]
) -> list[bool]:
    """Each question about its picture, after its turns; right if the text is exactly the answer."""
    right = []
    for start in range(0, len(asked), 256):
        part = asked[start : start + 256]
        prompts = [prompt(turns, question) for _, turns, (question, _) in part]
        answers = write(model, speller, told[[number for number, _, _ in part]], prompts, 10)
        right += [answer == wanted for answer, (_, _, (_, wanted)) in zip(answers, part, strict=True)]
    return right
