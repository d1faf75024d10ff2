"""Squares of pictures, to the last level as the library's processors with Pillow make them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    EfficientNetImageProcessorPil,
    Owlv2ImageProcessorPil,
    SiglipImageProcessorPil,
    ViltImageProcessorPil,
)

from models.framing import Fit, Framing, framed

SIZES = [(32, 32), (33, 33), (90, 40), (31, 100), (333, 217), (5, 7), (3, 290), (48, 48)]
PLAIN = {"do_rescale": False, "do_normalize": False}
LIKE = [
    (Framing(32), SiglipImageProcessorPil(size={"height": 32, "width": 32}, **PLAIN)),
    (Framing(32, Fit.CROP), CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32, **PLAIN)),
    (Framing(33, Fit.CROP, 48), CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size=33, **PLAIN)),
    (
        Framing(33, Fit.SQUEEZE, 40, Image.Resampling.BILINEAR),
        EfficientNetImageProcessorPil(
            size={"height": 40, "width": 40}, crop_size=33, do_center_crop=True, resample=2, include_top=False, **PLAIN
        ),
    ),
]


def noise(size: tuple[int, int]) -> Image.Image:
    values = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize(("how", "processor"), LIKE, ids=str)
def test_as_the_library_makes_them(how: Framing, processor: Any) -> None:
    for size in SIZES:
        image = noise(size)
        [expected] = processor(image, return_tensors="np")["pixel_values"]
        np.testing.assert_array_equal(np.asarray(framed(image, how)).transpose(2, 0, 1), expected)


@pytest.mark.parametrize("side", [32, 33, 100])
def test_padded_on_the_right_or_below_as_owlv2s_processor_has_it(side: int) -> None:
    processor = Owlv2ImageProcessorPil(size={"height": side, "width": side}, do_normalize=False)
    for size in [*SIZES, (1, 1), (1, 2), (100, 99)]:
        image = noise(size)
        [expected] = processor(image, return_tensors="np", input_data_format="channels_last")["pixel_values"]
        found = np.asarray(framed(image, Framing(side, Fit.PAD))).transpose(2, 0, 1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(384, 384), (640, 480), (480, 640), (900, 300), (350, 500), (3000, 40), (40, 3000)])
def test_the_whole_as_vilts_processor_has_it(size: tuple[int, int]) -> None:
    """And as it was, if it is seen again; the processor cannot read the last two, one side of which would become 0."""
    how = Framing(32, Fit.WHOLE, 384)
    made = framed(noise(size), how)
    assert isinstance(made, Image.Image)
    assert made.size == how.made(*size)
    assert framed(made, how) is made
    assert made.width * made.height <= how.most_pixels
    if min(size) > 40:
        [expected] = ViltImageProcessorPil(**PLAIN)(noise(size), return_tensors="np")["pixel_values"]
        np.testing.assert_array_equal(np.asarray(made).transpose(2, 0, 1), expected)


def test_a_square_of_the_right_size_stays_itself() -> None:
    image = noise((32, 32))
    assert all(framed(image, Framing(32, fit)) is image for fit in Fit if fit is not Fit.PAD)
    np.testing.assert_allclose(np.asarray(framed(image, Framing(32, Fit.PAD))), np.asarray(image) / 255.0, atol=1e-6)


@pytest.mark.parametrize("size", [(20_000, 200), (200, 20_000), (16, 9)])
def test_what_a_long_picture_needs_is_counted(size: tuple[int, int]) -> None:
    how = Framing(224, Fit.CROP)
    wide, high = how.size(*size)
    assert min(wide, high) == 224
    assert how.num_pixels(*size) == how.num_pixels(*size[::-1]) >= wide * high + wide * size[1]
    assert Framing(224).num_pixels(*size) == 0
