"""The heat over a picture."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from app.decoding import drawing
from app.decoding.drawing import draw, most_bytes
from app.decoding.drawings import Heat
from app.decoding.turbo import TURBO
from tests.app.support import picture

COLOURS = np.frombuffer(TURBO, np.uint8).reshape(256, 3).astype(int)
NOISE = np.random.default_rng(0)


def heat(*rows: list[int]) -> Heat:
    return Heat(len(rows), len(rows[0]), bytes(level for row in rows for level in row))


def drawn(image: Image.Image, over: Heat) -> Any:
    return np.asarray(Image.open(io.BytesIO(draw(image, over))), dtype=int)


def test_the_table_is_turbo() -> None:
    known = 255 * mpl.colormaps["turbo"](np.arange(256))[:, :3]
    assert (known.round() == COLOURS).all()


def test_the_hotter_the_less_of_the_picture() -> None:
    grey = np.full(3, 128)
    for level in (0, 40, 128, 255):
        share = (level / 255) ** 0.7
        expected = share * COLOURS[level] + (1 - share) * grey
        assert np.abs(drawn(picture("#808080", (7, 5)), heat([level])) - expected).max() <= 1.5


def test_each_patch_is_where_it_belongs() -> None:
    """Rows from the top, columns from the left, of a picture that is not square."""
    values = drawn(picture("black", (90, 40)), heat([255, 0, 0], [0, 0, 0]))
    brightness = values.sum(2)
    assert np.abs(values[5, 8] - COLOURS[255]).max() < 40
    assert brightness[:, 60:].max() == brightness[32:].max() == 0


@pytest.mark.parametrize("size", [(613, 401), (3, 200), (1, 1)])
def test_bands_have_no_seams(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    over = Heat(24, 24, NOISE.integers(0, 256, 576, np.uint8).tobytes())
    whole = drawn(picture("white", size), over)
    monkeypatch.setattr(drawing, "PIXELS_AT_ONCE", 1000)
    assert np.abs(drawn(picture("white", size), over) - whole).max() <= 5  # a level at most: boxes are floats


@pytest.mark.parametrize("size", [(1000, 700), (1, 100), (100, 1), (1, 1)])
def test_no_picture_has_more_bytes_than_are_counted(size: tuple[int, int]) -> None:
    noise = Image.fromarray(NOISE.integers(0, 256, (size[1], size[0], 3), np.uint8))
    assert len(draw(noise, heat([0]))) <= most_bytes(heat([0]), size)


def test_nothing_but_pixels_is_written() -> None:
    image = picture("white")
    image.info |= {"icc_profile": b"profile" * 1000, "transparency": (255, 255, 255), "comment": "private"}
    again = Image.open(io.BytesIO(draw(image, heat([0]))))
    again.load()
    assert (again.info, again.mode) == ({}, "RGB")
