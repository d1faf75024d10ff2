"""The pictures of shapes that docs/bulk.md begins with, two of which the page offers (app/page/examples): scenes of
the kind that the demo models know, drawn large enough to be looked at. `python -m training.page_examples` draws them
anew."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw

from training.scenes import COLORS, IMAGE_SIZE, Outline, fill

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "app" / "page" / "examples"
DOCUMENTED = ROOT / "docs" / "images" / "shapes"
OFFERED = ("circle-and-rectangle", "three-shapes")  # by the page
SIDE = 480  # pixels of the picture
OVERSAMPLING = 4
NUM_COLORS = 64  # of the palette: few shades lie between a shape and its background

Color = tuple[int, int, int]
SCENES: dict[
    str, tuple[Color, dict[str, Outline]]
] = {  # background; colour -> outline, in the units of training/scenes.py
    "circle-and-rectangle": (
        (250, 248, 240),
        {"blue": ("circle", [(10, 26), (30, 46)]), "green": ("rectangle", [(38, 20), (56, 40)])},
    ),
    "triangle-above-circle": (
        (244, 250, 244),
        {"black": ("triangle", [(20, 26), (42, 26), (31, 7)]), "red": ("circle", [(24, 36), (42, 54)])},
    ),
    "three-shapes": (
        (246, 242, 248),
        {
            "yellow": ("circle", [(8, 8), (24, 24)]),
            "teal": ("triangle", [(24, 56), (44, 56), (34, 38.7)]),
            "brown": ("rectangle", [(46, 14), (57, 30)]),
        },
    ),
    "red-triangle": ((240, 246, 250), {"red": ("triangle", [(34, 54), (58, 54), (46, 33.2)])}),
}


def draw(name: str) -> Image.Image:
    background, shapes = SCENES[name]
    drawing = Image.new("RGB", (SIDE * OVERSAMPLING,) * 2, background)
    scale = SIDE * OVERSAMPLING / IMAGE_SIZE
    for color, (kind, corners) in shapes.items():
        fill(ImageDraw.Draw(drawing), (kind, [(scale * x, scale * y) for x, y in corners]), COLORS[color])
    shrunk = drawing.resize((SIDE, SIDE), resample=Image.Resampling.BOX)
    return shrunk.quantize(NUM_COLORS, dither=Image.Dither.NONE)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    for scene in SCENES:
        for folder in (DOCUMENTED, FOLDER) if scene in OFFERED else (DOCUMENTED,):
            (folder / f"{scene}.png").write_bytes(png(draw(scene)))
