"""A picture padded to a square and resized as OWLv2's processor does it, in floats. What is shrunk is smoothed by a
Gaussian and then interpolated linearly; both are linear along each axis, so that each row and each column of the result
is a weighted sum of a few.

Source: transformers image_processing_pil_owlv2.py, after google-research/scenic owl_vit/preprocessing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

AT_ONCE = 16  # rows or columns that are made: more of them share what they are made of, and need more memory
TRUNCATED = 4.0  # standard deviations, from which on the Gaussian is taken for 0
HIGHEST = np.float32(255)  # of grey levels


@dataclass(frozen=True, slots=True)
class Band:
    """Places `made` of the result, each a weighted sum of the places from `start` on."""

    made: slice
    start: int
    weights: NDArray[np.float32]  # (made, places)


def num_pixels(width: int, height: int, side: int) -> int:
    """Upper bound on what padding and shrinking a picture of this size makes on its way, in pixels of 4 bytes, lying or
    standing. Of the picture: bytes, their floats and another array of bytes; of the rows: two arrays."""
    longer = max(width, height)
    rows = min(longer, int((AT_ONCE + 2 * TRUNCATED) * max(1.0, longer / side)) + 4)
    return 5 * rows * longer + 6 * AT_ONCE * longer + 6 * side * side


def padded(image: Image.Image, side: int) -> NDArray[np.float32]:
    """RGB from 0 to 1, `(side, side, 3)`; on the right or below, black."""
    square = np.zeros((side, side, 3), np.float32)
    low, high = _extrema(image)
    bands = _bands(max(image.size), side)
    for band in bands:
        rows = _product(band, image)
        if rows is None:
            break
        for across in bands:
            weights = across.weights[:, : max(0, rows.shape[1] - across.start)]
            if weights.size:
                seen = rows[:, across.start : across.start + weights.shape[1]] @ weights.T  # (rows x 3, columns)
                levels = seen.clip(low, high) / HIGHEST
                square[band.made, across.made] = levels.reshape(-1, 3, weights.shape[0]).transpose(0, 2, 1)
    return square


def _product(band: Band, image: Image.Image) -> NDArray[np.float32] | None:
    """Rows of the result, still as wide as the picture: `(rows x 3, width)`. None: all is below it."""
    end = min(image.height, band.start + band.weights.shape[1])
    if end <= band.start:
        return None
    seen = np.asarray(image.crop((0, band.start, image.width, end)), np.float32).reshape(end - band.start, -1)
    rows = (band.weights[:, : len(seen)] @ seen).reshape(-1, image.width, 3)
    return np.ascontiguousarray(rows.transpose(0, 2, 1)).reshape(-1, image.width)


def _extrema(image: Image.Image) -> tuple[float, float]:
    """Of the padded picture's channels together: interpolation does not leave them."""
    lows, highs = zip(*image.getextrema(), strict=True)
    return min(lows) if image.width == image.height else 0.0, max(highs)


def _bands(length: int, side: int) -> list[Band]:
    places, weights = _weighted_places(length, side)
    bands = []
    for start, end in pairwise([*range(0, side, AT_ONCE), side]):
        own = places[start:end]
        first = int(own.min())
        dense = np.zeros((end - start, int(own.max()) + 1 - first), np.float32)
        np.add.at(dense, (np.arange(end - start)[:, None], own - first), weights[start:end])
        bands.append(Band(slice(start, end), first, dense))
    return bands


def _weighted_places(length: int, side: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which of `length` places each of `side` is made of, and by which weights: both `(side, numbers)`. At the ends it
    goes on as in a mirror, without the last place twice."""
    factor = length / side
    deviation = max(0.0, (factor - 1) / 2)
    radius = int(TRUNCATED * deviation + 0.5)
    offsets = np.arange(-radius, radius + 1)
    gaussian = np.exp(-0.5 * (offsets / deviation) ** 2) if radius else np.ones(1)
    gaussian /= gaussian.sum()
    centres = (np.arange(side) + 0.5) * factor - 0.5
    nearest = np.floor(centres)
    after = centres - nearest
    both = _mirrored(nearest.astype(np.int64)[:, None] + [0, 1], length)  # (side, 2)
    places = _mirrored(both[:, :, None] + offsets, length)
    weights = np.stack([1 - after, after], 1)[:, :, None] * gaussian
    return places.reshape(side, -1), weights.reshape(side, -1)


def _mirrored(places: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    period = max(1, 2 * (length - 1))
    there = places % period
    return np.asarray(np.minimum(there, period - there) if length > 1 else np.zeros_like(there))
