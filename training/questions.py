"""Questions about a scene and their answers, 3 to 20 tokens long: easy-VQA's own forms, and further ones about colour,
kind, size, position, relation and number."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from training.captions import RELATIONS, Phrase, parse, random_phrase, related
from training.scenes import COLORS, KINDS, POSITIONS, SIZES, Scene, Shape

Question = tuple[str, str]  # text, answer
NUMBERS = ("zero", "one", "two", "three")

_IS_THERE = ("is there a {}?", "is there a {} in the image?", "does the image contain a {}?", "is a {} present?")
_IS_THERE_NOT = (
    "is there not a {}?",
    "is there not a {} in the image?",
    "does the image not contain a {}?",
    "is no {} present?",
)
_KIND = (
    "what shape is in the image?",
    "what shape is present?",
    "what shape does the image contain?",
    "what shape is it?",
)
_COLOR = ("what color is the {}?", "what is the color of the {}?")
_HOW_MANY = ("how many {} are there?", "how many {} are in the image?", "how many {} can you see in the image?")
_LEADS = (
    "please tell me , {}",
    "look at the picture : {}",
    "can you tell me , {}",
    "here is a question about this picture : {}",
)


def yes(truth: bool) -> str:
    return "yes" if truth else "no"


def random_question(rng: Random, scene: Scene) -> Question:
    """Any question that has one right answer for `scene`."""
    while True:
        makers = _ONE if len(scene.shapes) == 1 else _SEVERAL
        made = rng.choice(makers)(rng, scene)
        if made is not None:
            return _reworded(rng, made)


def _reworded(rng: Random, question: Question) -> Question:
    text, answer = question
    draw = rng.random()
    if draw < 0.06:
        text = rng.choice(_LEADS).format(text)
    elif draw < 0.12:
        text = text.replace("image", "picture").replace("color", "colour")
    elif draw < 0.18:
        text = text.replace(" shape", " object")
    elif draw < 0.2:
        text = text.removesuffix("?").strip()
    return text, answer


def _easy_kind(rng: Random, scene: Scene) -> Question:
    shape = scene.shapes[0]
    return rng.choice([*_KIND, f"what is the {shape.color} shape?"]), shape.kind


def _easy_color(rng: Random, scene: Scene) -> Question:
    shape = scene.shapes[0]
    return rng.choice([*_COLOR, "what color is it?"]).format(rng.choice([shape.kind, "shape"])), shape.color


def whether_it_is_there(rng: Random, scene: Scene) -> Question:
    """easy-VQA's yes-or-no questions about a kind or a colour, positive or negated; half of them true."""
    shape = rng.choice(scene.shapes)
    if rng.random() < 0.4:
        thing = shape.kind if rng.random() < 0.4 else rng.choice(KINDS)
        truth = any(other.kind == thing for other in scene.shapes)
    else:
        color = shape.color if rng.random() < 0.4 else rng.choice(list(COLORS))
        thing = f"{color} shape"
        truth = any(other.color == color for other in scene.shapes)
    if rng.random() < 0.5:
        return rng.choice(_IS_THERE).format(thing), yes(truth)
    return rng.choice(_IS_THERE_NOT).format(thing), yes(not truth)


def _exists_phrase(rng: Random, scene: Scene) -> Question:
    phrase = str(random_phrase(rng, rng.choice(scene.shapes)))
    if rng.random() < 0.5:
        phrase = _other_words(rng, phrase)
    caption = parse(phrase)
    assert caption is not None
    form = rng.choice(("is there {}?", "is there {} in the image?", "does the image show {}?", "can you see {}?"))
    return form.format(phrase), yes(caption.true_of(scene))


def _other_words(rng: Random, phrase: str) -> str:
    """`phrase` with one word changed."""
    groups = [group for group in (tuple(COLORS), KINDS, SIZES, POSITIONS) if any(word in phrase for word in group)]
    group = rng.choice(groups)
    old = next(word for word in group if word in phrase)
    return phrase.replace(old, rng.choice([word for word in group if word != old]))


def _unique(rng: Random, scene: Scene) -> tuple[Shape, Phrase]:
    """A shape, and a phrase of colour, kind or both (sometimes size) that fits it alone."""
    shape = rng.choice(scene.shapes)
    phrases = [Phrase(shape.color), Phrase(None, shape.kind), Phrase(shape.color, shape.kind)]
    phrases.append(Phrase(shape.color, shape.kind, shape.size))
    phrases = [phrase for phrase in phrases if sum(phrase.fits(other) for other in scene.shapes) == 1]
    return shape, rng.choice(phrases)


def the_phrase(phrase: Phrase) -> str:
    """`phrase` with "the" instead of "a"."""
    return "the " + str(phrase).removeprefix("a ")


def _size(rng: Random, scene: Scene) -> Question:
    shape, phrase = _unique(rng, scene)
    name = "it" if len(scene.shapes) == 1 and rng.random() < 0.3 else the_phrase(phrase)
    if phrase.size is None and rng.random() < 0.6:
        return rng.choice((f"how big is {name}?", f"what size is {name}?", f"is {name} small or large?")), shape.size
    asked = rng.choice(SIZES)
    if phrase.size:
        name = the_phrase(Phrase(phrase.color, phrase.kind))
    return f"is {name} {asked}?", yes(asked == shape.size)


def _position(rng: Random, scene: Scene) -> Question:
    shape, phrase = _unique(rng, scene)
    name = "it" if len(scene.shapes) == 1 and rng.random() < 0.3 else the_phrase(phrase)
    if rng.random() < 0.6:
        form = rng.choice(("where is {}?", "where in the image is {}?", "in which corner is {}?"))
        return form.format(name), shape.position
    asked = shape.position if rng.random() < 0.45 else rng.choice(POSITIONS)
    return f"is {name} at the {asked}{rng.choice(('', ' of the image'))}?", yes(asked == shape.position)


def _attribute(rng: Random, scene: Scene) -> Question:
    """The colour or kind of a shape that is identified by the other one, by its size or by its place."""
    shape = rng.choice(scene.shapes)
    asks_color = rng.random() < 0.5
    phrases = [Phrase(None, shape.kind) if asks_color else Phrase(shape.color), Phrase(position=shape.position)]
    phrases += [Phrase(size=shape.size), Phrase(size=shape.size, position=shape.position)]
    phrases = [phrase for phrase in phrases if sum(phrase.fits(other) for other in scene.shapes) == 1]
    if not phrases:
        return _number(rng, scene)
    name = the_phrase(rng.choice(phrases))
    if asks_color:
        return rng.choice((f"what color is {name}?", f"what is the color of {name}?")), shape.color
    return rng.choice((f"what is {name}?", f"what kind of shape is {name}?")), shape.kind


def _number(rng: Random, scene: Scene) -> Question:
    what = rng.random()
    if what < 0.35:
        count, things = len(scene.shapes), "shapes"
    elif what < 0.7:
        kind = rng.choice(scene.shapes).kind if rng.random() < 0.6 else rng.choice(KINDS)
        count, things = sum(shape.kind == kind for shape in scene.shapes), f"{kind}s"
    else:
        color = rng.choice(scene.shapes).color if rng.random() < 0.6 else rng.choice(list(COLORS))
        count, things = sum(shape.color == color for shape in scene.shapes), f"{color} shapes"
    return rng.choice(_HOW_MANY).format(things), NUMBERS[count]


def _everything(rng: Random, scene: Scene) -> Question:
    shape = scene.shapes[0]
    return rng.choice(("what is this?", "what is in the image?", "what does the image show?")), shape.name


def _relation(rng: Random, scene: Scene) -> Question:
    first, second = rng.sample(scene.shapes, 2)
    relation = rng.choice(RELATIONS)
    names = (f"the {first.name}", f"the {second.name}")
    return f"is {names[0]} {relation} {names[1]}?", yes(related(first, relation, second))


def _related(rng: Random, scene: Scene) -> Question | None:
    """What stands in a relation to a shape, when just one does."""
    shape, phrase = _unique(rng, scene)
    relation = rng.choice(RELATIONS)
    found = [other for other in scene.shapes if other is not shape and related(other, relation, shape)]
    if len(found) != 1:
        return None
    (other,) = found
    ending = f"{relation} {the_phrase(phrase)}?"
    return rng.choice(
        (
            (f"what is {ending}", other.name),
            (f"what color is the shape {ending}", other.color),
            (f"what kind of shape is {ending}", other.kind),
        )
    )


_Maker = Callable[[Random, Scene], Question | None]
_ONE: tuple[_Maker, ...] = (
    *(whether_it_is_there,) * 6, *(_easy_kind,) * 3, *(_easy_color,) * 3,
    _exists_phrase, _size, _size, _position, _position, _number, _everything, _attribute,
)  # fmt: skip
_SEVERAL: tuple[_Maker, ...] = (
    *(whether_it_is_there,) * 2, *(_exists_phrase,) * 2, _size, _position, _position, *(_attribute,) * 2,
    *(_number,) * 2, *(_relation,) * 3, *(_related,) * 3,
)  # fmt: skip
