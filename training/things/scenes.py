"""Scenes of one to three things on a plain, graded or textured ground. Masks and boxes are exact: what is drawn last
hides nothing, and a pixel is a thing's that covers half of it.

Lengths are in 64ths of the picture's side unless a name says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.scenes import Box
from training.things.names import Noun, alike
from training.things.pictures import Look

Pixels = NDArray[np.uint8]  # (side, side, 3)

UNIT = 64  # a picture's side
SMALL_TO, LARGE_FROM = 21.0, 33.0  # the longer side of the box; between them it is neither
THIRDS = (24.0, 40.0)  # where left, middle and right meet, and top, middle and bottom
BORDERLINE = 3.0  # closer than this to a third, a centre's place is not told
_SIZES = {1: (18, 58), 2: (15, 34), 3: (14, 26)}  # the longer side, by how many things there are
_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")
POSITIONS = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
SIZES = ("small", "large")


@dataclass(frozen=True, slots=True)
class Sprite:
    """One picture to draw with. `premultiplied`: of mode RGBa, so that scaling mixes no hidden colour in."""

    noun: Noun
    color: str | None
    premultiplied: Image.Image


def position_of(box: Box) -> str | None:
    """None if it is not clear."""
    x, y = box.center
    if min(abs(value - third) for value in (x, y) for third in THIRDS) < BORDERLINE:
        return None
    words = (_ROWS[sum(y > third for third in THIRDS)], _COLUMNS[sum(x > third for third in THIRDS)])
    return " ".join(filter(None, words)) or "middle"


def covers(place: str, position: str) -> bool:
    """Whether what is at `position` is at `place`: what is at the top left is on the left, too."""
    return set(place.split()) <= set(position.split())


@dataclass(frozen=True, slots=True)
class Thing:
    """Equal things of one scene, mostly one. A size or position that is not clear is None."""

    noun: Noun
    color: str | None
    boxes: tuple[Box, ...]

    @property
    def count(self) -> int:
        return len(self.boxes)

    @property
    def box(self) -> Box:
        """Around them all."""
        return Box(
            min(box.left for box in self.boxes),
            min(box.top for box in self.boxes),
            max(box.right for box in self.boxes),
            max(box.bottom for box in self.boxes),
        )

    @property
    def size(self) -> str | None:
        length = max(box.longer_side for box in self.boxes)
        return "small" if length <= SMALL_TO else "large" if length >= LARGE_FROM else None

    @property
    def position(self) -> str | None:
        return position_of(self.box)

    def is_at(self, place: str) -> bool:
        """Whether one of them is, or may be."""
        positions = [position_of(box) for box in self.boxes]
        return any(position is None or covers(place, position) for position in positions)


@dataclass(frozen=True, slots=True)
class Scene:
    """`shapes`: its things, from left to right; no two have one name."""

    shapes: tuple[Thing, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """`owners` (side, side): 0 where there is ground, else the number from 1 of the box, counted thing by thing."""

    scene: Scene
    pixels: Pixels
    owners: NDArray[np.uint8]


def sprites(looks: Sequence[Look], styles: Sequence[str], names: Sequence[str]) -> list[Sprite]:
    """The pictures in these styles of what has one of these names."""
    wanted = frozenset(names)
    return [
        Sprite(look.noun, look.colors[style], Image.fromarray(look.pictures[style]).convert("RGBa"))
        for look in looks
        if look.noun.name in wanted
        for style in styles
    ]


class Sprites:
    """Those of a phase. A name is drawn with equal chances, whatever number of pictures it has."""

    def __init__(self, every: Sequence[Sprite]) -> None:
        self.by_name: dict[str, list[Sprite]] = {}
        for sprite in every:
            self.by_name.setdefault(sprite.noun.name, []).append(sprite)
        self.names = tuple(self.by_name)
        self.nouns = {name: found[0].noun for name, found in self.by_name.items()}

    def draw(self, rng: Random, counts: Sequence[int]) -> list[tuple[Sprite, int]]:
        """For each count a name that is like no other of them; several equal ones only of what people count."""
        while True:
            names = rng.sample(self.names, len(counts))
            if any(alike(name, other) for name, other in combinations(names, 2)):
                continue
            chosen = [(rng.choice(self.by_name[name]), count) for name, count in zip(names, counts, strict=True)]
            if all(count == 1 or sprite.noun.kind == "count" for sprite, count in chosen):
                return chosen


@dataclass(frozen=True, slots=True)
class Mix:
    """How often a scene has one, two or three things, and how often several are equal: all, or two of three."""

    counts: tuple[float, float, float]
    equal: float = 0.25


def random_scene(rng: Random, known: Sprites, mix: Mix, side: int) -> Drawn:
    """`side`: of the picture, in pixels."""
    total = rng.choices((1, 2, 3), mix.counts)[0]
    counts = [1] * total
    if total > 1 and rng.random() < mix.equal:
        counts = rng.choice([[2]] if total == 2 else [[3], [2, 1]])
    chosen = known.draw(rng, counts)
    while True:
        drawn = _try(rng, chosen, side)
        if drawn is not None:
            return drawn


def _try(rng: Random, chosen: Sequence[tuple[Sprite, int]], side: int) -> Drawn | None:
    """None if chance has put them too close together."""
    total = sum(count for _, count in chosen)
    placed: list[tuple[Box, Image.Image, tuple[int, int]]] = []
    for sprite, count in chosen:
        length = rng.uniform(*_SIZES[total])
        scaled = _scale(sprite.premultiplied, length * side / UNIT, is_mirrored=rng.random() < 0.5)
        seen = _extent(scaled)
        for _ in range(count):
            found = _corner(rng, scaled, seen, [box for box, _, _ in placed], side)
            if found is None:
                return None
            placed.append((found[0], scaled, found[1]))
    groups, done = [], 0
    for sprite, count in chosen:
        groups.append((sprite, placed[done : done + count]))
        done += count
    groups.sort(key=lambda group: Thing(group[0].noun, None, tuple(box for box, _, _ in group[1])).box.center[0])
    return _draw(rng, groups, side)


def _corner(
    rng: Random, image: Image.Image, extent: tuple[int, int, int, int], others: Sequence[Box], side: int
) -> tuple[Box, tuple[int, int]] | None:
    """A place clear of the others, and its top left corner in pixels; None if there seems to be none."""
    for _ in range(20):
        corner = rng.randint(0, side - image.width), rng.randint(0, side - image.height)
        box = _box(extent, corner, UNIT / side)
        if all(box.clear_of(other) for other in others):
            return box, corner
    return None


def _draw(
    rng: Random, groups: Sequence[tuple[Sprite, Sequence[tuple[Box, Image.Image, tuple[int, int]]]]], side: int
) -> Drawn:
    pixels, owners = ground(rng, side), np.zeros((side, side), np.uint8)
    things, number = [], 0
    for sprite, placed in groups:
        for _, image, (left, top) in placed:
            number += 1
            over = np.asarray(image).astype(np.float32)  # (height, width, 4), premultiplied
            where = np.s_[top : top + image.height, left : left + image.width]
            pixels[where] = over[..., :3] + pixels[where] * (1 - over[..., 3:] / 255)
            owners[where][over[..., 3] >= 128] = number
        things.append(Thing(sprite.noun, sprite.color, tuple(box for box, _, _ in placed)))
    return Drawn(Scene(tuple(things)), pixels.clip(0, 255).astype(np.uint8), owners)


def _scale(image: Image.Image, length: float, *, is_mirrored: bool) -> Image.Image:
    """To `length` pixels a side."""
    size = max(1, round(length))
    scaled = image.resize((size, size), Image.Resampling.BILINEAR)
    return scaled.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if is_mirrored else scaled


def _extent(image: Image.Image) -> tuple[int, int, int, int]:
    """The pixels that are at least half covered: left, top, and behind the last ones right and bottom."""
    covered = np.asarray(image)[..., 3] >= 128
    columns, rows = np.flatnonzero(covered.any(0)), np.flatnonzero(covered.any(1))
    if not len(columns):  # thinner than a pixel
        return 0, 0, image.width, image.height
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _box(extent: tuple[int, int, int, int], corner: tuple[int, int], scale: float) -> Box:
    left, top, right, bottom = extent
    x, y = corner
    return Box((x + left) * scale, (y + top) * scale, (x + right) * scale, (y + bottom) * scale)


def ground(rng: Random, side: int) -> NDArray[np.float32]:
    """(side, side, 3): half of them plain, the others graded, or with a texture of blots or stripes."""
    first = _shade(rng)
    kind = rng.random()
    plain = np.broadcast_to(first, (side, side, 3)).copy()
    if kind < 0.5:
        return plain
    second = _shade(rng)
    if kind < 0.75:
        return first + (second - first) * _ramp(rng, side)[..., None]
    second = first + (second - first) * 0.3  # a texture is fainter than the things on it
    if kind < 0.9:
        return first + (second - first) * _blots(rng, side)[..., None]
    stripes = np.floor(_ramp(rng, side) * rng.randint(4, 12)) % 2
    return (first + (second - first) * stripes[..., None]).astype(np.float32)


def _shade(rng: Random) -> NDArray[np.float32]:
    """Mostly light, as paper and walls are."""
    low, high = (150, 255) if rng.random() < 0.75 else (0, 255)
    return np.array([rng.randint(low, high) for _ in range(3)], np.float32)


def _ramp(rng: Random, side: int) -> NDArray[np.float32]:
    """(side, side), 0 to 1 in a direction of chance."""
    across, down = rng.uniform(-1, 1), rng.uniform(-1, 1)
    line = np.linspace(0, 1, side, dtype=np.float32)
    ramp = across * line[None, :] + down * line[:, None]
    return np.asarray((ramp - ramp.min()) / max(float(ramp.max() - ramp.min()), 1e-6), np.float32)


def _blots(rng: Random, side: int) -> NDArray[np.float32]:
    """(side, side), 0 to 1, soft."""
    cells = rng.randint(4, 16)
    coarse = Image.frombytes("L", (cells, cells), rng.randbytes(cells * cells))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32) / np.float32(255)
