"""Heat, segments and boxes over a picture, and masks."""

from __future__ import annotations

import io
from base64 import b64decode
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from app.decoding import drawing
from app.decoding.drawing import cut_out, draw, most_bytes
from app.decoding.drawings import Boxes, Drawing, Heat, Masks, Segments, packed, unpacked
from app.decoding.turbo import TURBO
from tests.app.support import picture

COLOURS = np.frombuffer(TURBO, np.uint8).reshape(256, 3).astype(int)
NOISE = np.random.default_rng(0)


def heat(*rows: list[int]) -> Heat:
    return Heat(len(rows), len(rows[0]), bytes(level for row in rows for level in row))


def drawn(image: Image.Image, over: Drawing) -> Any:
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


# --- segments, boxes, masks ---

NOISY = NOISE.integers(0, 256, 3 * 24 * 24, np.uint8).tobytes()
WORDS = ("red", "\u7d05 \x00\r\n\x1b[1m", "x" * 10_000)
HALVES = Segments(("above", "below"), 2, 1, bytes([255, 0, 0, 255]))


@pytest.mark.parametrize(
    "drawing",
    [
        None,
        heat([0, 255]),
        Segments(WORDS, 24, 24, NOISY),
        Boxes(((0.5, -1.25, 3.0, 1e9),), ("a\nb",), (0,)),
        Boxes((), (), ()),
        Masks(3, 2, 24, 24, NOISY),
    ],
)
def test_drawings_arrive_as_they_were_sent(drawing: Drawing | None) -> None:
    assert unpacked(packed(drawing)) == drawing


def test_the_likelier_segment_is_seen() -> None:
    values = drawn(picture("white", (90, 60)), HALVES)
    assert len({tuple(values[1, 1]), tuple(values[58, 1]), (255, 255, 255)}) == 3
    assert (values[:15] == values[0, 0]).all()
    assert (values[45:60] == values[59, 0]).all()


@pytest.mark.parametrize("size", [(613, 401), (3, 200), (100, 1), (1, 1)])
def test_bands_of_segments_have_no_seams(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    over = Segments(WORDS, 24, 24, NOISY)
    whole = drawn(picture("white", size), over)
    monkeypatch.setattr(drawing, "PIXELS_AT_ONCE", 1000)
    # Where two are equally likely, a level decides whose colour it is.
    assert np.mean(np.abs(drawn(picture("white", size), over) - whole).max(2) > 5) < 0.01


@pytest.mark.parametrize("size", [(1000, 700), (1, 100), (100, 1), (1, 1)])
def test_whatever_is_drawn_has_no_more_bytes_than_are_counted(size: tuple[int, int]) -> None:
    noise = Image.fromarray(NOISE.integers(0, 256, (size[1], size[0], 3), np.uint8))
    outside = ((-5.0, -5.0, 1e6, 1e6), (7.0, 7.0, 3.0, 3.0), (1e6, 0.0, -1e6, 0.0))
    for over in (Segments(WORDS, 24, 24, NOISY), Boxes(outside, WORDS, (0, 1, 2))):
        assert len(draw(noise.copy(), over)) <= most_bytes(over, size)
    masks = Masks(*size, 24, 24, NOISY)
    assert len(cut_out(masks)) <= most_bytes(masks, size)


def test_masks_are_in_order_and_as_large_as_told() -> None:
    lines = cut_out(Masks(50, 20, 1, 2, bytes([0, 255, 255, 255]))).split()
    first, second = (np.asarray(Image.open(io.BytesIO(b64decode(line, validate=True)))) for line in lines)
    assert first.shape == second.shape == (20, 50)
    assert (second == 255).all()
    assert (first[:, :12].max(), first[:, 38:].min()) == (0, 255)


def test_a_box_is_where_it_is_told() -> None:
    values = drawn(picture("white", (200, 150)), Boxes(((50.0, 60.0, 150.0, 140.0),), ("red",), (0,)))
    rows, columns = np.nonzero((values[60:] != 255).any(2))
    assert (rows.min() + 60, rows.max() + 60) == (60, 140)
    assert (columns.min(), columns.max()) == (50, 150)
    assert (values[70:130, 60:140] == 255).all()
