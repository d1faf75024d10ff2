"""Scenes of one to three coloured shapes, drawn in the style of easy-VQA (github.com/vzhou842/easy-VQA,
gen_data/images.py): 64 x 64 pixels, a light background, drawn at twice the size and shrunk with bilinear filtering.

Lengths are in pixels of the 64-pixel picture unless a name says otherwise."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Pixels = NDArray[np.uint8]  # (64, 64, 3)

IMAGE_SIZE = 64
DRAW_SIZE = 128  # shapes are drawn at this size
COLORS: dict[str, tuple[int, int, int]] = {
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "teal": (0, 128, 128),
    "brown": (165, 42, 42),
}
KINDS = ("circle", "rectangle", "triangle")
SIZES = ("small", "large")
POSITIONS = ("top left", "top right", "bottom left", "bottom right")

# Boxes come in halves of a pixel; the class boundaries lie between two values that occur.
LARGE_FROM = 16.2  # the longer side of the box
MIDDLE = 31.9  # the centre of the box
BORDERLINE = 2.0  # closer than this to a class boundary is hard to tell
CLEAR = 5.0  # the least distance, along both axes, between the centres of two shapes of one scene
GAP = 2.0  # and between their boxes


@dataclass(frozen=True, slots=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    @property
    def center(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def longer_side(self) -> float:
        return max(self.right - self.left, self.bottom - self.top)

    def clear_of(self, other: Box) -> bool:
        """Two shapes may share a scene: boxes apart, and clear which is left, right, above or below."""
        apart = (
            max(self.left, other.left) - min(self.right, other.right) >= GAP
            or max(self.top, other.top) - min(self.bottom, other.bottom) >= GAP
        )
        return apart and min(self.offset(other)) >= CLEAR

    def offset(self, other: Box) -> tuple[float, float]:
        """How far the centres are apart, across and down."""
        return abs(self.center[0] - other.center[0]), abs(self.center[1] - other.center[1])


@dataclass(frozen=True, slots=True)
class Shape:
    color: str
    kind: str
    box: Box

    @property
    def name(self) -> str:
        return f"{self.color} {self.kind}"

    @property
    def size(self) -> str:
        return "large" if self.box.longer_side > LARGE_FROM else "small"

    @property
    def position(self) -> str:
        x, y = self.box.center
        return f"{'top' if y < MIDDLE else 'bottom'} {'left' if x < MIDDLE else 'right'}"

    @property
    def borderline(self) -> bool:
        """Another size or position would nearly be as good."""
        x, y = self.box.center
        return min(abs(x - MIDDLE), abs(y - MIDDLE), abs(self.box.longer_side - LARGE_FROM)) < BORDERLINE


@dataclass(frozen=True, slots=True)
class Scene:
    """`shapes` from left to right; no two have the same colour and kind."""

    shapes: tuple[Shape, ...]


def edges(profile: NDArray[np.float64]) -> tuple[float, float]:
    """Where a shape begins and ends along one axis. `profile` (64,): the greatest coverage, 0..1, per column or row."""
    covered = np.flatnonzero(profile >= 0.227)  # far from the coverage of any drawn edge
    first, last = int(covered[0]), int(covered[-1])
    return first + 1 - min(1.0, float(profile[first])), last + min(1.0, float(profile[last]))


def measure(coverage: NDArray[np.float64]) -> Box:
    """The bounding box of a shape from its coverage (64, 64) of each pixel, 0..1."""
    left, right = edges(coverage.max(0))
    top, bottom = edges(coverage.max(1))
    return Box(left, top, right, bottom)


Outline = tuple[str, list[tuple[float, float]]]  # kind, corners in pixels of the drawing


def random_outline(rng: Random, kind: str, shortest: int, longest: int) -> Outline:
    """Sizes and places as easy-VQA draws them, in pixels of the drawing."""
    width = rng.randint(shortest, longest)
    if kind == "triangle":
        # easy-VQA leaves room for the longest side in every direction; closer to the edge is fair too.
        height = width * math.sqrt(3) / 2
        room = width if rng.random() < 0.7 else 0
        x = rng.randint(room, DRAW_SIZE - width)
        y = rng.randint(max(room, math.ceil(height)), DRAW_SIZE - max(room, 1))
        return kind, [(x, y), (x + width, y), (x + width / 2, y - height)]
    height = rng.randint(shortest, longest) if kind == "rectangle" else width
    x, y = rng.randint(0, DRAW_SIZE - width), rng.randint(0, DRAW_SIZE - height)
    return kind, [(x, y), (x + width, y + height)]


def fill(draw: ImageDraw.ImageDraw, outline: Outline, color: int | tuple[int, int, int]) -> None:
    kind, corners = outline
    if kind == "triangle":
        draw.polygon(corners, fill=color)
    elif kind == "circle":
        draw.ellipse(corners, fill=color)
    else:
        draw.rectangle(corners, fill=color)


def shrink(drawing: Image.Image) -> Image.Image:
    return drawing.resize((IMAGE_SIZE, IMAGE_SIZE), resample=Image.Resampling.BILINEAR)


def outline_box(outline: Outline) -> Box:
    mask = Image.new("L", (DRAW_SIZE, DRAW_SIZE), 0)
    fill(ImageDraw.Draw(mask), outline, 255)
    return measure(np.asarray(shrink(mask)) / 255)


def rough_box(outline: Outline) -> Box:
    x, y = zip(*outline[1], strict=True)
    return Box(min(x) / 2, min(y) / 2, max(x) / 2, max(y) / 2)


def _place(rng: Random, count: int) -> list[Outline] | None:
    """Try once to place `count` shapes clear of one another."""
    placed: list[Outline] = []
    longest = DRAW_SIZE // 2 if count == 1 else 44
    if rng.random() < 0.3:
        longest = 32  # small shapes are the hard ones: circle or square?
    for _ in range(count):
        outline = random_outline(rng, rng.choice(KINDS), DRAW_SIZE // 8, longest)
        if not all(rough_box(outline).clear_of(rough_box(other)) for other in placed):
            return None
        placed.append(outline)
    if count == 2:
        across, down = rough_box(placed[0]).offset(rough_box(placed[1]))
        return placed if abs(across - down) >= CLEAR else None
    return placed


def _color(rng: Random, outlines: list[Outline]) -> list[str]:
    """A colour for each shape; shapes of one kind get different ones."""
    colors: list[str] = []
    while len({(kind, color) for (kind, _), color in zip(outlines, colors, strict=False)}) < len(outlines):
        colors = [rng.choice(list(COLORS)) for _ in outlines]
    return colors


def random_scene(rng: Random, count: int) -> tuple[Scene, Pixels]:
    """A scene of `count` shapes and its picture."""
    outlines = None
    while outlines is None:
        outlines = _place(rng, count)
    colors = _color(rng, outlines)
    background = (rng.randint(230, 255), rng.randint(230, 255), rng.randint(230, 255))
    drawing = Image.new("RGB", (DRAW_SIZE, DRAW_SIZE), background)
    draw = ImageDraw.Draw(drawing)
    shapes = []
    for outline, color in zip(outlines, colors, strict=True):
        fill(draw, outline, COLORS[color])
        shapes.append(Shape(color, outline[0], outline_box(outline)))
    shapes.sort(key=lambda shape: shape.box.center[0])
    return Scene(tuple(shapes)), np.asarray(shrink(drawing)).copy()


def png(pixels: Pixels) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
