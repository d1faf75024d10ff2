"""What can be said of a scene of things, and whether a caption is true of a scene.

a [small] [red] car [at the top left]
a dog to the left of a slice of pizza
two dogs and a car
a cat, a tree and an umbrella
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from training.captions import RELATIONS, Caption, related
from training.things.names import COLORS, NUMBERS, Noun, unlike
from training.things.scenes import POSITIONS, SIZES, Scene, Thing, covers

MOST_THINGS = len(NUMBERS) - 1  # of a scene


@dataclass(frozen=True, slots=True)
class Phrase:
    """A description of a thing, or of `count` equal ones; None leaves a property open."""

    noun: Noun
    color: str | None = None
    size: str | None = None
    position: str | None = None
    count: int = 1

    def __str__(self) -> str:
        adjectives = [word for word in (self.size, self.color) if word]
        if self.count == 1:
            said = self.noun.one(*adjectives)
        else:
            said = " ".join([NUMBERS[self.count], *adjectives, self.noun.many])
        return said + (f" {place(self.position)}" if self.position else "")

    def fits(self, shape: Thing) -> bool:
        """Where there are two dogs, there is a dog; what is at the top left is on the left, too."""
        if self.noun.name != shape.noun.name or self.count not in (1, shape.count):
            return False
        told = ((self.color, shape.color), (self.size, shape.size))
        return all(word in (None, seen) for word, seen in told) and (
            self.position is None or (shape.position is not None and covers(self.position, shape.position))
        )


def phrases_of(caption: Caption) -> list[Phrase]:
    """All of them, as a caption of things has no others."""
    return [phrase for phrase in caption.phrases if isinstance(phrase, Phrase)]


def place(position: str) -> str:
    """at the top left, in the middle, on the left"""
    preposition = {"middle": "in", "left": "on", "right": "on"}.get(position, "at")
    return f"{preposition} the {position}"


def named(thing: Thing) -> Phrase:
    return Phrase(thing.noun, count=thing.count)


def colored(thing: Thing) -> Phrase:
    return Phrase(thing.noun, thing.color, count=thing.count)


def describe(scene: Scene) -> Caption:
    """The one caption that the decoder learns for a scene: a single thing with its colour, and its place where it is
    small; the relation of two along the axis that sets them further apart; three from left to right."""
    if len(scene.shapes) == 1:
        (thing,) = scene.shapes
        if thing.count == 1 and thing.size == "small" and thing.position:
            return Caption((replace(colored(thing), size="small", position=thing.position),))
        return Caption((colored(thing),))
    if len(scene.shapes) == 2 and max(thing.count for thing in scene.shapes) == 1:
        first, second = scene.shapes
        across, down = first.box.offset(second.box)
        if across >= down:
            return Caption((named(first), named(second)), "to the left of")
        upper, lower = sorted(scene.shapes, key=lambda thing: thing.box.center[1])
        return Caption((named(upper), named(lower)), "above")
    return Caption(tuple(map(named, scene.shapes)))


def random_phrase(rng: Random, thing: Thing) -> Phrase:
    """A true phrase with some of what can be said."""
    return Phrase(
        thing.noun,
        thing.color if rng.random() < 0.5 else None,
        thing.size if rng.random() < 0.3 else None,
        thing.position if thing.count == 1 and rng.random() < 0.4 else None,
        thing.count,
    )


def random_caption(rng: Random, scene: Scene) -> Caption:
    """A true caption, of any form."""
    form = rng.random()
    if form < 0.3:
        return describe(scene)
    things = rng.sample(scene.shapes, len(scene.shapes))
    if len(things) == 1 or form < 0.55:
        return Caption((random_phrase(rng, things[0]),))
    if form < 0.85 and things[0].count == things[1].count == 1:
        relation = rng.choice([relation for relation in RELATIONS if related(things[0], relation, things[1])])
        is_colored = rng.random() < 0.3
        return Caption(tuple(map(colored if is_colored else named, things[:2])), relation)
    return Caption(tuple(map(named, things)))


def short_caption(rng: Random, scene: Scene) -> Caption:
    """The name of one of its things, with others or without."""
    return Caption((Phrase(rng.choice(scene.shapes).noun),))


def spoil(rng: Random, caption: Caption, scene: Scene, nouns: Sequence[Noun], keeps_names: bool = False) -> Caption:
    """`caption` with one property, number or relation changed, or two things exchanged, so that it is false of `scene`.
    `nouns`: what a thing can be said to be. `keeps_names`: not of another thing, where anything else can be changed."""
    others = unlike(nouns, [thing.noun.name for thing in scene.shapes]) + [thing.noun for thing in scene.shapes]
    while True:
        changed = _changed(rng, caption, others, keeps_names)
        if not changed.true_of(scene):
            return changed


def _changed(rng: Random, caption: Caption, nouns: Sequence[Noun], keeps_names: bool) -> Caption:
    if caption.relation and (keeps_names or rng.random() < 0.5):
        return _unrelated(rng, caption)
    phrases = phrases_of(caption)
    room = MOST_THINGS - sum(phrase.count for phrase in phrases)
    told = [(index, name) for index, phrase in enumerate(phrases) for name in _told(phrase, room, keeps_names)]
    named = [(index, "noun") for index in range(len(phrases))]
    index, name = rng.choice(told if keeps_names and told else [*told, *named, *named])
    is_one = phrases[index].count == 1
    choices: dict[str, Sequence[Any]] = {
        "noun": [noun for noun in nouns if is_one or noun.kind == "count"],
        "color": COLORS,
        "size": SIZES,
        "position": POSITIONS,
        "count": range(1, phrases[index].count + room + 1),
    }
    phrases[index] = replace(phrases[index], **{name: rng.choice(choices[name])})
    return replace(caption, phrases=tuple(phrases))


def _unrelated(rng: Random, caption: Caption) -> Caption:
    if rng.random() < 0.5:
        return replace(caption, phrases=caption.phrases[::-1])
    return replace(caption, relation=rng.choice(RELATIONS))


def _told(phrase: Phrase, room: int, is_one_a_number: bool) -> list[str]:
    """What can be changed beside the noun: properties, or the number where a scene has `room` for more, so that it
    cannot be seen from the text alone that it is false."""
    told = [name for name in ("color", "size", "position") if getattr(phrase, name)]
    is_number = phrase.count > 1 or (is_one_a_number and phrase.noun.kind == "count")
    return told or (["count"] if is_number and (room or phrase.count == MOST_THINGS) else [])


class Parser:
    """Reads captions of the forms above back. `nouns`: what may be named."""

    def __init__(self, nouns: Iterable[Noun]) -> None:
        self._nouns = {text: noun for noun in nouns for text in (noun.name, noun.many)}
        longest_first = sorted(self._nouns, key=len, reverse=True)
        places = {place(position): position for position in POSITIONS}
        self._places: Mapping[str, str] = places
        self._phrase = re.compile(
            rf"(?P<count>an?|some|two|three) (?:(?P<size>{'|'.join(SIZES)}) )?(?:(?P<color>{'|'.join(COLORS)}) )?"
            rf"(?P<noun>{'|'.join(map(re.escape, longest_first))})(?: (?P<place>{'|'.join(places)}))?"
        )

    def parse(self, text: str) -> Caption | None:
        """The caption that `text` says; None if it has none of the forms above."""
        relation = next((relation for relation in RELATIONS if f" {relation} " in text), None)
        phrases = [self._one(part) for part in re.split(rf" {relation} " if relation else r", | and ", text)]
        known = tuple(phrase for phrase in phrases if phrase is not None)
        if len(known) < len(phrases) or (relation and len(phrases) != 2):
            return None
        return Caption(known, relation)

    def entails(self, text: str, scene: Scene) -> bool:
        """Whether the caption `text` is true of `scene`. What cannot be parsed is not."""
        caption = self.parse(text)
        return caption is not None and caption.true_of(scene)

    def _one(self, text: str) -> Phrase | None:
        match = self._phrase.fullmatch(text)
        if match is None:
            return None
        count = NUMBERS.index(match["count"]) if match["count"] in NUMBERS else 1
        position = self._places[match["place"]] if match["place"] else None
        return Phrase(self._nouns[match["noun"]], match["color"], match["size"], position, count)
