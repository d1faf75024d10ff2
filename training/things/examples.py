"""The scenes of things that the page offers first, and the one that the models are tried with when they are loaded:
one of each kind, drawn larger than those of training. `python -m training.things.examples` draws them anew.

Their pictures are of Noto Emoji (Apache License 2.0)."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from training.page_examples import FOLDER
from training.things.pictures import WORK, looks
from training.things.scenes import UNIT, Sprites, sprites
from training.things.train import CHECKPOINTS

SIDE = 256  # pixels of the picture
STYLE = "google"
QUALITY = 66  # a tenth of what PNG takes

Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Place:
    """A thing's picture, square: its corner and side, in 64ths of the whole. `number`: of its name's pictures."""

    name: str
    left: float
    top: float
    length: float
    number: int = 0


@dataclass(frozen=True, slots=True)
class Example:
    """`ground`: its colour at the top and at the bottom."""

    ground: tuple[Color, Color]
    places: tuple[Place, ...]


EXAMPLES = {
    "dog-and-pizza": Example(
        ((226, 238, 250), (226, 238, 250)), (Place("dog", 4, 20, 28), Place("slice of pizza", 36, 22, 24))
    ),
    "red-car": Example(((252, 246, 226), (248, 232, 196)), (Place("car", 12, 12, 40),)),
    "cat-tree-umbrella": Example(
        ((240, 248, 238), (222, 238, 216)),
        (Place("cat", 2, 34, 20), Place("tree", 22, 4, 22), Place("umbrella", 42, 36, 20)),
    ),
    "two-ducks": Example(((250, 240, 246), (240, 224, 236)), (Place("duck", 8, 8, 22), Place("duck", 36, 36, 22))),
}
TRIED = "dog-and-pizza"


def draw(example: Example, known: Sprites) -> Image.Image:
    ramp = np.linspace(0, 1, SIDE)[:, None, None]
    first, last = (np.array(color, np.float64) for color in example.ground)
    ground = np.broadcast_to(first + (last - first) * ramp, (SIDE, SIDE, 3)).round().astype(np.uint8)
    drawing = Image.fromarray(np.ascontiguousarray(ground))
    for place in example.places:
        sprite = known.by_name[place.name][place.number].premultiplied
        length, left, top = (round(value * SIDE / UNIT) for value in (place.length, place.left, place.top))
        scaled = sprite.resize((length, length), Image.Resampling.LANCZOS).convert("RGBA")
        drawing.paste(scaled, (left, top), scaled)
    return drawing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK, help="for pictures (default: %(default)s)")
    options = parser.parse_args()
    names = [place.name for example in EXAMPLES.values() for place in example.places]
    known = Sprites(sprites(looks(options.work), (STYLE,), names))
    files = {FOLDER / f"{name}.webp": example for name, example in EXAMPLES.items()}
    for file, example in (files | {CHECKPOINTS / "example.webp": EXAMPLES[TRIED]}).items():
        draw(example, known).save(file, quality=QUALITY, method=6)


if __name__ == "__main__":
    main()
