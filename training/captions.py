"""What can be said of a scene: captions, and whether a caption is true of a scene.

a [small] red triangle [at the bottom left]
a [small] blue circle to the left of a [large] green rectangle
a red circle, a blue triangle and a green rectangle
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Protocol

from training.scenes import COLORS, KINDS, POSITIONS, SIZES, Box, Scene, Shape

RELATIONS = ("to the left of", "to the right of", "above", "below")
SHORT_CAPTIONS = tuple(f"a {color} {kind}" for color in COLORS for kind in KINDS)  # the 24 that the evaluation ranks


@dataclass(frozen=True, slots=True)
class Phrase:
    """A description of one shape; None leaves a property open. `kind` None reads "shape"."""

    color: str | None = None
    kind: str | None = None
    size: str | None = None
    position: str | None = None

    def __str__(self) -> str:
        words = [word for word in (self.size, self.color, self.kind or "shape") if word]
        return "a " + " ".join(words) + (f" at the {self.position}" if self.position else "")

    def fits(self, shape: Shape) -> bool:
        told = (self.color, self.kind, self.size, self.position)
        seen = (shape.color, shape.kind, shape.size, shape.position)
        return all(word is None or word == other for word, other in zip(told, seen, strict=True))


class Placed(Protocol):
    @property
    def box(self) -> Box: ...


class Describing(Protocol):
    """A phrase for one shape, or for a thing of another kind of scene (training/things)."""

    def fits(self, shape: Any) -> bool: ...


class Shown(Protocol):
    """A scene of shapes, or of things."""

    @property
    def shapes(self) -> tuple[Any, ...]: ...


@dataclass(frozen=True, slots=True)
class Caption:
    """One phrase, several (a list), or two with the relation of the first to the second."""

    phrases: tuple[Describing, ...]
    relation: str | None = None

    def __str__(self) -> str:
        if self.relation:
            return f"{self.phrases[0]} {self.relation} {self.phrases[1]}"
        *most, last = map(str, self.phrases)
        return f"{', '.join(most)} and {last}" if most else last

    def true_of(self, scene: Shown) -> bool:
        for shapes in itertools.permutations(scene.shapes, len(self.phrases)):
            if all(phrase.fits(shape) for phrase, shape in zip(self.phrases, shapes, strict=True)) and (
                self.relation is None or related(shapes[0], self.relation, shapes[1])
            ):
                return True
        return False


def related(shape: Placed, relation: str, other: Placed) -> bool:
    (x, y), (other_x, other_y) = shape.box.center, other.box.center
    return {
        "to the left of": x < other_x,
        "to the right of": x > other_x,
        "above": y < other_y,
        "below": y > other_y,
    }[relation]


_PHRASE = re.compile(
    rf"a (?:(?P<size>{'|'.join(SIZES)}) )?(?:(?P<color>{'|'.join(COLORS)}) )?(?P<kind>{'|'.join(KINDS)}|shape)"
    rf"(?: at the (?P<position>{'|'.join(POSITIONS)}))?"
)


def parse(text: str) -> Caption | None:
    """The caption that `text` says; None if it has none of the forms above."""
    relation = next((relation for relation in RELATIONS if f" {relation} " in text), None)
    parts = re.split(rf" {relation} " if relation else r", | and ", text)
    if relation and len(parts) != 2:
        return None
    phrases = []
    for part in parts:
        match = _PHRASE.fullmatch(part)
        if match is None:
            return None
        told = match.groupdict()
        phrases.append(Phrase(**{**told, "kind": None if told["kind"] == "shape" else told["kind"]}))
    return Caption(tuple(phrases), relation)


def entails(text: str, scene: Scene) -> bool:
    """Whether the caption `text` is true of `scene`. What cannot be parsed is not."""
    caption = parse(text)
    return caption is not None and caption.true_of(scene)


def describe(scene: Scene) -> Caption:
    """The one caption that the decoder learns for a scene: everything about one shape, the relation of two along the
    axis that sets them further apart, three from left to right."""
    if len(scene.shapes) == 1:
        (shape,) = scene.shapes
        return Caption((Phrase(shape.color, shape.kind, shape.size, shape.position),))
    if len(scene.shapes) == 2:
        first, second = scene.shapes
        across, down = first.box.offset(second.box)
        if across >= down:
            return Caption((_named(first), _named(second)), "to the left of")
        upper, lower = sorted(scene.shapes, key=lambda shape: shape.box.center[1])
        return Caption((_named(upper), _named(lower)), "above")
    return Caption(tuple(_named(shape) for shape in scene.shapes))


def _named(shape: Shape) -> Phrase:
    return Phrase(shape.color, shape.kind)


def random_phrase(rng: Random, shape: Shape) -> Phrase:
    """A true phrase with some of what can be said; at least colour or kind."""
    naming = rng.random()
    return Phrase(
        shape.color if naming < 0.92 else None,
        shape.kind if naming > 0.08 else None,
        shape.size if rng.random() < 0.4 else None,
        shape.position if rng.random() < 0.4 else None,
    )


def random_caption(rng: Random, scene: Scene) -> Caption:
    """A true caption, of any form."""
    form = rng.random()
    if form < 0.3:
        return describe(scene)
    shapes = rng.sample(scene.shapes, len(scene.shapes))
    if len(shapes) == 1 or form < 0.55:
        return Caption((_named(shapes[0]) if rng.random() < 0.4 else random_phrase(rng, shapes[0]),))
    if form < 0.85:
        sized = rng.random() < 0.3
        first, second = (
            Phrase(shape.color, shape.kind, shape.size if sized else None) for shape in (shapes[0], shapes[1])
        )
        relation = rng.choice([relation for relation in RELATIONS if related(shapes[0], relation, shapes[1])])
        return Caption((first, second), relation)
    return Caption(tuple(_named(shape) for shape in shapes))


_CHOICES: dict[str, tuple[str, ...]] = {"color": tuple(COLORS), "kind": KINDS, "size": SIZES, "position": POSITIONS}


def spoil(rng: Random, caption: Caption, scene: Scene) -> Caption | None:
    """`caption` with one word or relation changed, or its two shapes swapped, so that it is false of `scene`."""
    for _ in range(8):
        index = rng.randrange(len(caption.phrases))
        phrase = caption.phrases[index]
        assert isinstance(phrase, Phrase)
        told = [name for name in _CHOICES if getattr(phrase, name)] + ["relation"] * 2 * bool(caption.relation)
        name = rng.choice(told)
        if name == "relation":
            changed = replace(caption, relation=rng.choice(RELATIONS))
        else:
            phrases = list(caption.phrases)
            phrases[index] = replace(phrase, **{name: rng.choice(_CHOICES[name])})
            changed = replace(caption, phrases=tuple(phrases))
        if not changed.true_of(scene):
            return changed
    return None
