"""Drawn shapes that stand in for the pictures of things, which are downloaded."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from training.things.names import noun
from training.things.pictures import SIDE, STYLES, Look, Picture

FORMS = {"ball": "ellipse", "box": "rectangle", "slice of pizza": "regular_polygon", "owl": "rounded_rectangle"}
SHADES = {"red": (230, 20, 20), "blue": (30, 60, 230), "green": (20, 160, 40)}


def picture(form: str, shade: tuple[int, int, int], margin: int) -> Picture:
    image = Image.new("RGBA", (SIDE, SIDE))
    draw, box = ImageDraw.Draw(image), (margin, 0, SIDE - 1 - margin, SIDE - 1)
    if form == "regular_polygon":
        draw.regular_polygon((SIDE / 2, SIDE / 2, SIDE / 2 - 1), 3, fill=shade)
    elif form == "rounded_rectangle":
        draw.rounded_rectangle(box, 20, fill=shade)
    else:
        getattr(draw, form)(box, fill=shade)
    return np.asarray(image).copy()


def made_looks() -> list[Look]:
    """Four things of two colours each, and the styles differ in how wide they are."""
    return [
        Look(
            noun(name),
            {style: picture(form, SHADES[color], 4 * number) for number, style in enumerate(STYLES)},
            dict.fromkeys(STYLES, color),
        )
        for name, form in FORMS.items()
        for color in ("red", "blue")
    ]
