"""What the language model learns to say of a scene, in LAVIS' forms: captions, answers, dialogues, a newline last."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from models.families.blip2 import dialogue
from models.inputs import Turn
from training.captions import Caption, Phrase, describe
from training.dialogues import needing_the_turn_before, random_dialogue
from training.questions import Question, random_question, whether_it_is_there
from training.scenes import Scene

Text = list[tuple[str, bool]]  # parts, and whether each is learned (else given)

PROMPTS = ("a photo of", "a picture of", "this is")
WHAT_IS_THERE = "tell me about all shapes."
NUM_TRIES = 5  # at a dialogue that not every choice of a shape allows


def prompt(turns: Sequence[Question], question: str) -> str:
    """As LAVIS asks, after the turns of a dialogue."""
    return dialogue.prompt(question, None, [Turn(*turn) for turn in turns])


def listing(scene: Scene) -> Caption:
    """All there is to say of every shape, from left to right."""
    return Caption(tuple(Phrase(shape.color, shape.kind, shape.size, shape.position) for shape in scene.shapes))


def caption_text(rng: Random, scene: Scene) -> Text:
    caption = str(describe(scene))
    if rng.random() < 0.75:
        return [(f"{caption}\n", True)]
    return [(rng.choice(PROMPTS), False), (f" {caption}\n", True)]


def listing_text(scene: Scene) -> Text:
    return [(prompt((), WHAT_IS_THERE), False), (f" {listing(scene)}\n", True)]


def dialogue_text(rng: Random, scene: Scene, public: Sequence[Question]) -> Text:
    def alone() -> Question:
        return rng.choice(public) if public and rng.random() < 0.5 else random_question(rng, scene)

    return turns_text(random_dialogue(rng, scene, alone, rng.choice((1, 1, 2, 3, 4, 5))))


def turns_text(turns: Sequence[Question]) -> Text:
    parts: Text = []
    for number, (question, answer) in enumerate(turns):
        between = ". " if number else ""
        parts += [(f"{between}Question: {question} Answer:", False), (f" {answer}", True)]
    return [*parts, ("\n", True)]


def random_text(rng: Random, scene: Scene, public: Sequence[Question]) -> Text:
    draw = rng.random()
    if draw < 0.2:
        return caption_text(rng, scene)
    if draw < 0.35:
        return listing_text(scene)
    return dialogue_text(rng, scene, public)


def simple_text(rng: Random, scene: Scene, public: Sequence[Question]) -> Text:  # noqa: ARG001
    """One question whether there is something."""
    return question_text(whether_it_is_there(rng, scene))


def single_text(rng: Random, scene: Scene, public: Sequence[Question]) -> Text:
    """One question, or a caption."""
    draw = rng.random()
    if draw < 0.1:
        return caption_text(rng, scene)
    if draw < 0.4:
        return question_text(whether_it_is_there(rng, scene))
    return question_text(rng.choice(public) if public and draw < 0.7 else random_question(rng, scene))


def describing_text(rng: Random, scene: Scene, public: Sequence[Question]) -> Text:  # noqa: ARG001
    """A caption, or better a listing: the texts that tell most of a scene."""
    return caption_text(rng, scene) if rng.random() < 0.3 else listing_text(scene)


def talking_text(rng: Random, scene: Scene, public: Sequence[Question]) -> Text:
    """Every other one a dialogue of turns that need the one before, if the scene allows such; more listings, too."""
    draw = rng.random()
    if draw < 0.2:
        return listing_text(scene)
    for _ in range(NUM_TRIES if draw < 0.7 else 0):
        if turns := needing_the_turn_before(rng, scene):
            return turns_text(turns)
    return random_text(rng, scene, public)


def question_text(question: Question) -> Text:
    asked, answer = question
    return [(prompt((), asked), False), (f" {answer}\n", True)]
