"""Questions about a scene of things and their answers: what, where, how many, which colour, yes or no."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from training.captions import RELATIONS, Caption, related
from training.questions import Question, yes
from training.things.captions import Phrase, place, random_phrase
from training.things.names import COLORS, NUMBERS, Noun, unlike
from training.things.scenes import POSITIONS, Scene, Thing, covers

_WHAT = ("what is this?", "what is in the picture?", "what do you see?", "what does the picture show?")
_WHERE = ("where is {}?", "where in the picture is {}?", "in which part of the picture is {}?")
_HOW_MANY = ("how many {} are there?", "how many {} are in the picture?", "how many {} can you see?")
_COLOR = ("what color {0} {1}?", "which color {0} {1}?", "what is the color of {1}?")
_IS_THERE = (
    "{0} there {1}?",
    "{0} there {1} in the picture?",
    "do you see {1}?",
    "can you see {1}?",
    "does the picture show {1}?",
)
_LEADS = ("please tell me , {}", "look at the picture : {}", "can you tell me , {}")


def random_question(rng: Random, scene: Scene, nouns: Sequence[Noun]) -> Question:
    """Any question that has one right answer for `scene`. `nouns`: what may be asked about that is not there."""
    makers = _ONE if len(scene.shapes) == 1 else _SEVERAL
    while True:
        made = rng.choice(makers)(rng, scene, nouns)
        if made is not None:
            return _reworded(rng, made)


def whole_question(rng: Random, scene: Scene) -> Question:
    """What the whole of it shows."""
    return _reworded(rng, _what(rng, scene, ()))


def topic_of(question: str) -> str:
    """what, where, how many, color, or yes/no."""
    for word, topic in (("how many", "how many"), ("color", "color"), ("colour", "color"), ("where", "where")):
        if word in question:
            return topic
    return "where" if "which part" in question else "what" if "what" in question else "yes/no"


def _reworded(rng: Random, question: Question) -> Question:
    text, answer = question
    draw = rng.random()
    if draw < 0.05:
        text = rng.choice(_LEADS).format(text)
    elif draw < 0.15:
        text = text.replace("picture", "image").replace("color", "colour")
    elif draw < 0.2:
        text = text.removesuffix("?")
    return text, answer


def _the(thing: Thing) -> str:
    """As what a question names it, one or several."""
    return f"the {thing.noun.name if thing.count == 1 else thing.noun.many}"


def _are(thing: Thing) -> str:
    return "are" if thing.count > 1 or thing.noun.kind == "plural" else "is"


def _said(thing: Thing) -> str:
    """As an answer names it: dog, two dogs."""
    return thing.noun.name if thing.count == 1 else f"{NUMBERS[thing.count]} {thing.noun.many}"


def _what(rng: Random, scene: Scene, _: Sequence[Noun]) -> Question:
    return rng.choice(_WHAT), " and ".join(map(_said, scene.shapes))


def _what_there(rng: Random, scene: Scene, _: Sequence[Noun]) -> Question | None:
    """What is at a place, when one thing alone clearly is."""
    thing = rng.choice(scene.shapes)
    position = thing.position
    if thing.count > 1 or position is None or sum(other.is_at(position) for other in scene.shapes) > 1:
        return None
    return f"what is {place(position)}?", thing.noun.name


def _where(rng: Random, scene: Scene, _: Sequence[Noun]) -> Question | None:
    thing = rng.choice(scene.shapes)
    if thing.count > 1 or thing.position is None:
        return None
    return rng.choice(_WHERE).format(_the(thing)), thing.position


def _is_where(rng: Random, scene: Scene, _: Sequence[Noun]) -> Question | None:
    thing = rng.choice(scene.shapes)
    if thing.count > 1 or thing.position is None:
        return None
    asked = thing.position if rng.random() < 0.5 else rng.choice(POSITIONS)
    return f"{_are(thing)} {_the(thing)} {place(asked)}?", yes(covers(asked, thing.position))


def _how_many(rng: Random, scene: Scene, nouns: Sequence[Noun]) -> Question | None:
    draw = rng.random()
    if draw < 0.25:
        return rng.choice(_HOW_MANY).format("things"), NUMBERS[sum(thing.count for thing in scene.shapes)]
    thing = rng.choice(scene.shapes)
    noun, count = thing.noun, thing.count
    if draw < 0.45:
        noun, count = _absent(rng, scene, nouns), 0
    return None if noun.kind != "count" else (rng.choice(_HOW_MANY).format(noun.many), NUMBERS[count])


def _absent(rng: Random, scene: Scene, nouns: Sequence[Noun]) -> Noun:
    """What is not there, nor anything like it."""
    return rng.choice(unlike(nouns, [thing.noun.name for thing in scene.shapes]))


def _color(rng: Random, scene: Scene, _: Sequence[Noun]) -> Question | None:
    thing = rng.choice(scene.shapes)
    if thing.color is None:
        return None
    return rng.choice(_COLOR).format(_are(thing), _the(thing)), thing.color


def _is_color(rng: Random, scene: Scene, _: Sequence[Noun]) -> Question | None:
    thing = rng.choice(scene.shapes)
    if thing.color is None:
        return None
    asked = thing.color if rng.random() < 0.5 else rng.choice(COLORS)
    return f"{_are(thing)} {_the(thing)} {asked}?", yes(asked == thing.color)


def _is_there(rng: Random, scene: Scene, nouns: Sequence[Noun]) -> Question:
    if rng.random() < 0.5:
        said = Phrase(_absent(rng, scene, nouns))
    else:
        thing = rng.choice(scene.shapes)
        said = Phrase(thing.noun, count=thing.count)
    return _whether(rng, said, scene)


def _whether(rng: Random, said: Phrase, scene: Scene) -> Question:
    verb = "are" if said.count > 1 or said.noun.kind == "plural" else "is"
    return rng.choice(_IS_THERE).format(verb, said), yes(Caption((said,)).true_of(scene))


def _is_there_such(rng: Random, scene: Scene, _: Sequence[Noun]) -> Question | None:
    """About a colour or a size of what is there."""
    said = random_phrase(rng, rng.choice(scene.shapes))
    if said.color is None:
        return None
    if rng.random() < 0.5:
        said = Phrase(said.noun, rng.choice(COLORS), said.size, None, said.count)
    return _whether(rng, said, scene)


def _is_related(rng: Random, scene: Scene, _: Sequence[Noun]) -> Question | None:
    first, second = rng.sample(scene.shapes, 2)
    if first.count > 1 or second.count > 1:
        return None
    relation = rng.choice(RELATIONS)
    return f"{_are(first)} {_the(first)} {relation} {_the(second)}?", yes(related(first, relation, second))


def _what_related(rng: Random, scene: Scene, _: Sequence[Noun]) -> Question | None:
    """What stands in a relation to a thing, when just one does."""
    if max(thing.count for thing in scene.shapes) > 1:
        return None
    thing, relation = rng.choice(scene.shapes), rng.choice(RELATIONS)
    found = [other for other in scene.shapes if other is not thing and related(other, relation, thing)]
    return (f"what is {relation} {_the(thing)}?", found[0].noun.name) if len(found) == 1 else None


_Maker = Callable[[Random, Scene, Sequence[Noun]], Question | None]
_ONE: tuple[_Maker, ...] = (
    *(_what,) * 4, *(_where,) * 2, _is_where, *(_how_many,) * 3, *(_color,) * 3, _is_color, *(_is_there,) * 3,
    _is_there_such, _what_there,
)  # fmt: skip
_SEVERAL: tuple[_Maker, ...] = (
    _what, *(_where,) * 2, _is_where, *(_how_many,) * 3, *(_color,) * 2, _is_color, *(_is_there,) * 3, _is_there_such,
    *(_what_there,) * 2, *(_is_related,) * 2, *(_what_related,) * 3,
)  # fmt: skip
