"""Dialogues about a scene: questions that stand alone, and questions about the shape that the turn before was about.

what shape is at the top left? circle. / and what color is that one? red. / how big is it? small.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from training.captions import RELATIONS, Phrase, related
from training.questions import Question, the_phrase, yes
from training.scenes import COLORS, KINDS, SIZES, Scene, Shape

_ASKS: dict[str, tuple[str, ...]] = {
    "color": ("what color is {}?", "what is the color of {}?"),
    "kind": ("what shape is {}?", "what kind of shape is {}?"),
    "size": ("how big is {}?", "what size is {}?"),
    "position": ("where is {}?", "where in the image is {}?"),
}
_ASKS_AGAIN: dict[str, tuple[str, ...]] = {
    "color": ("and what color is that one?", "what color is it?", "and its color?", "and what colour is that one?"),
    "kind": ("and what shape is that one?", "what shape is it?", "and its shape?"),
    "size": ("and how big is that one?", "what size is it?", "is it small or large?", "and its size?"),
    "position": ("and where is that one?", "where is it?", "and its place?"),
}
_VALUES: dict[str, tuple[str, ...]] = {"color": tuple(COLORS), "kind": KINDS, "size": SIZES}
ATTRIBUTES = tuple(_ASKS)


def pointed(rng: Random, scene: Scene) -> tuple[Question, Shape] | None:
    """A question about one of several shapes, identified by properties that it alone has; and that shape."""
    shape = rng.choice(scene.shapes)
    if rng.random() < 0.3:
        return _pointed_by_relation(rng, scene, shape)
    told = rng.sample(ATTRIBUTES, rng.choice((1, 1, 2)))
    phrase = Phrase(**{name: getattr(shape, name) for name in told})
    if sum(phrase.fits(other) for other in scene.shapes) != 1:
        return None
    asked = rng.choice([name for name in ATTRIBUTES if name not in told])
    name = f"at the {shape.position}" if told == ["position"] and asked == "kind" else the_phrase(phrase)
    return (rng.choice(_ASKS[asked]).format(name), getattr(shape, asked)), shape


def _pointed_by_relation(rng: Random, scene: Scene, other: Shape) -> tuple[Question, Shape] | None:
    relation = rng.choice(RELATIONS)
    found = [shape for shape in scene.shapes if shape is not other and related(shape, relation, other)]
    if len(found) != 1:
        return None
    return (f"what is {relation} the {other.name}?", found[0].name), found[0]


def follow_up(rng: Random, shape: Shape) -> Question:
    """A question that means nothing without the turn before it."""
    asked = rng.choice(ATTRIBUTES)
    if asked in _VALUES and rng.random() < 0.2:
        value = getattr(shape, asked) if rng.random() < 0.5 else rng.choice(_VALUES[asked])
        word = f"a {value}" if asked == "kind" else value
        return f"is it {word}?", yes(value == getattr(shape, asked))
    return rng.choice(_ASKS_AGAIN[asked]), getattr(shape, asked)


def random_dialogue(rng: Random, scene: Scene, alone: Callable[[], Question], num_turns: int) -> list[Question]:
    """Turns of all kinds; `alone` makes a question that needs no other."""
    turns: list[Question] = []
    focus = scene.shapes[0] if len(scene.shapes) == 1 else None
    while len(turns) < num_turns:
        draw = rng.random()
        if focus is not None and turns and draw < 0.5:
            turns.append(follow_up(rng, focus))
        elif len(scene.shapes) > 1 and draw < 0.8:
            if made := pointed(rng, scene):
                question, focus = made
                turns.append(question)
        else:
            turns.append(alone())
            focus = scene.shapes[0] if len(scene.shapes) == 1 else None
    return turns


def needing_the_turn_before(rng: Random, scene: Scene) -> list[Question] | None:
    """Three turns about one of several shapes. The second and third do not name it, and ask what distinguishes it from
    all others, so that no one can answer them from the picture alone. None if `scene` allows no such dialogue."""
    made = pointed(rng, scene)
    if made is None:
        return None
    first, shape = made
    telling = [
        name
        for name in ATTRIBUTES
        if getattr(shape, name) != first[1]
        and all(getattr(other, name) != getattr(shape, name) for other in scene.shapes if other is not shape)
    ]
    if len(telling) < 2:
        return None
    return [first, *((rng.choice(_ASKS_AGAIN[name]), getattr(shape, name)) for name in rng.sample(telling, 2))]
