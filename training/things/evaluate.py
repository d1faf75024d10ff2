"""What `make eval` asks the models of things: held-out scenes, in the styles of training and in the one that no phase
has seen."""

from __future__ import annotations

import base64
import io
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from training.asking import Client, Tally
from training.questions import Question
from training.scenes import Box, png
from training.things.captions import random_caption, spoil
from training.things.measure import ONE, TWO, names_all, overlap
from training.things.pictures import STYLES, UNSEEN, WORK, Look, looks
from training.things.questions import random_question, topic_of
from training.things.scenes import UNIT, Drawn, Mix, Sprites, random_scene, sprites
from training.things.words import Words, words_of

MODEL_PREFIX = "demo-things"  # of their names
HELD_OUT_SEED = "held-out things"  # no phase of training draws from it
NUM_SCENES = 300  # of one thing, as many of two, and of any number
SIDE = 128  # pixels: larger than the towers take, as what people send
GOALS = {  # by family
    "blip": {
        "caption: the thing named": 0.95,
        "caption: both of two named": 0.85,
        "ITC: the right one of all things": 0.95,
        "VQA: what": 0.95,
        "VQA: where": 0.95,
        "VQA: how many": 0.95,
        "VQA: color": 0.95,
        "VQA: yes/no": 0.95,
    },
}


@dataclass(frozen=True, slots=True)
class Case:
    """`style`: seen or unseen. `other`: a caption that is nearly that of `true`, and false."""

    style: str
    drawn: Drawn
    words: Words
    questions: tuple[Question, ...]
    true: str
    other: str

    @property
    def picture(self) -> bytes:
        return png(self.drawn.pixels)

    @property
    def names(self) -> list[str]:
        return [thing.noun.name for thing in self.drawn.scene.shapes]

    def figure(self, name: str) -> str:
        return name if self.style == "seen" else f"{name} ({self.style} style)"


def cases_of(every: Sequence[Look], words: Words, number: int) -> list[Case]:
    """`number` scenes of one thing, of two and of any number, in either style."""
    rng, cases = Random(HELD_OUT_SEED), []
    seen = tuple(style for style in STYLES if style != UNSEEN)
    for style, styles in (("seen", seen), ("unseen", (UNSEEN,))):
        known = Sprites(sprites(every, styles, [noun.name for noun in words.nouns]))
        for mix in (ONE, TWO, Mix((0.3, 0.35, 0.35))):
            cases += [_case(rng, style, random_scene(rng, known, mix, SIDE), words) for _ in range(number)]
    return cases


def _case(rng: Random, style: str, drawn: Drawn, words: Words) -> Case:
    questions = dict(random_question(rng, drawn.scene, words.nouns) for _ in range(6))
    true = random_caption(rng, drawn.scene)
    other = spoil(rng, true, drawn.scene, words.nouns)
    return Case(style, drawn, words, tuple(questions.items()), str(true), str(other))


@cache
def downloaded_cases() -> Sequence[Case]:
    every = looks(WORK)
    return cases_of(every, words_of(every), NUM_SCENES)


async def evaluate_caption(client: Client, case: Case, tally: Tally) -> None:
    answer = await client.ask("/caption", case.picture)
    text = answer["captions"][0]["text"] if answer else ""
    scene = case.drawn.scene
    tally.add(case.figure("caption: true"), case.words.parser.entails(text, scene))
    number = sum(thing.count for thing in scene.shapes)
    if number == len(scene.shapes) < 3:
        figure = "caption: the thing named" if number == 1 else "caption: both of two named"
        tally.add(case.figure(figure), names_all(text, scene, case.words))


async def evaluate_questions(client: Client, case: Case, tally: Tally) -> None:
    asked = [question for question, _ in case.questions]
    answer = await client.ask("/vqa", case.picture, question=asked)
    said = [item["answer"] for item in answer["answers"]] if answer else [None] * len(asked)
    for (question, right), text in zip(case.questions, said, strict=True):
        tally.add(case.figure(f"VQA: {topic_of(question)}"), text == right)


async def evaluate_matching(client: Client, case: Case, tally: Tally) -> None:
    """ITC of a single thing against all; ITM of a true caption and a nearly true one."""
    if len(case.names) == 1 and case.drawn.scene.shapes[0].count == 1:
        answer = await client.ask("/classify", case.picture, label=case.words.short, template=["{}"], head="itc")
        best = answer["classes"][0][0]["label"] if answer else None
        tally.add(case.figure("ITC: the right one of all things"), best == case.drawn.scene.shapes[0].noun.one())


async def evaluate_pairs(client: Client, case: Case, tally: Tally) -> None:
    answer = await client.ask("/match", case.picture, text=[case.true, case.other])
    scores = answer["scores"][0] if answer else [{"itm": 0.0}] * 2
    tally.add(case.figure("ITM: true before one word changed"), scores[0]["itm"] > scores[1]["itm"])


async def evaluate_segments(client: Client, case: Case, tally: Tally) -> None:
    """The leftmost thing's mask."""
    answer = await client.ask("/segment", case.picture, text=case.drawn.scene.shapes[0].noun.one())
    if answer is None:
        return tally.add(case.figure("segment: the mask overlaps by half"), False)
    with Image.open(io.BytesIO(base64.b64decode(answer["segments"][0]["mask"]))) as mask:
        found = np.asarray(mask.convert("L")) >= 128
    owners = case.drawn.owners
    true = (owners > 0) & (owners <= case.drawn.scene.shapes[0].count)
    share = (found & true).sum() / max((found | true).sum(), 1)
    return tally.add(case.figure("segment: the mask overlaps by half"), bool(share >= 0.5))


async def evaluate_boxes(client: Client, case: Case, tally: Tally) -> None:
    """The leftmost thing's box."""
    thing = case.drawn.scene.shapes[0]
    answer = await client.ask("/detect", case.picture, text=thing.noun.one(), threshold=0, top_k=1)
    boxes = [Box(*(UNIT / SIDE * edge for edge in one["box"])) for one in answer["detections"]] if answer else []
    is_found = any(overlap(box, own) >= 0.5 for box in boxes for own in thing.boxes)
    tally.add(case.figure("detect: the best box overlaps by half"), is_found)


Evaluation = Callable[[Client, Case, Tally], Awaitable[None]]
EVALUATIONS: dict[str, tuple[Evaluation, ...]] = {
    "caption": (evaluate_caption,),
    "vqa": (evaluate_questions,),
    "match": (evaluate_matching,),
    "segment": (evaluate_segments,),
    "detect": (evaluate_boxes,),
}


def jobs_of(
    model: Mapping[str, Any], client: Client, tally: Tally, cases: Sequence[Case] | None = None
) -> list[Awaitable[None]]:
    """`cases`: those of the downloaded pictures unless given."""
    evaluations = [one for task, several in EVALUATIONS.items() if task in model["tasks"] for one in several]
    if "caption" in model["tasks"] and "match" in model["tasks"]:
        evaluations.append(evaluate_pairs)
    cases = downloaded_cases() if cases is None else cases
    return [evaluation(client, case, tally) for evaluation in evaluations for case in cases]
