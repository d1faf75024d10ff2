"""The colour of a thing, as people say it, from its picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHARE = 0.55  # more than this of what can be seen of a thing has its colour
_HUES = (  # up to which hue in degrees; a hue beyond the last is red again
    (16, "red"), (39, "orange"), (68, "yellow"), (168, "green"), (256, "blue"), (292, "purple"), (340, "pink"),
    (360, "red"),
)  # fmt: skip


def names_of(picture: NDArray[np.uint8]) -> NDArray[np.str_]:
    """The colour of each pixel that can be seen, of a picture (side, side, 4)."""
    pixels = picture[picture[..., 3] >= 128][:, :3].astype(np.float64) / 255
    brightest, darkest = pixels.max(1), pixels.min(1)
    spread = brightest - darkest
    saturation = spread / np.maximum(brightest, 1e-6)
    hue = _hue(pixels, brightest, np.maximum(spread, 1e-6))
    names = np.array([name for _, name in _HUES])[np.searchsorted([end for end, _ in _HUES], hue, side="left")]
    warm = (hue > 8) & (hue < 39)
    names = np.where(warm & (brightest < 0.88), "brown", names)
    pale = (saturation < 0.5) & (brightest >= 0.8) & ((hue < 18) | (hue > 340))
    names = np.where(pale, "pink", names)
    names = np.where((saturation < 0.16) & (brightest > 0.85), "white", names)
    names = np.where((saturation < 0.28) & (brightest <= 0.85), "gray", names)
    return np.where(brightest < 0.3, "black", names)


def _hue(
    pixels: NDArray[np.float64], brightest: NDArray[np.float64], spread: NDArray[np.float64]
) -> NDArray[np.float64]:
    """In degrees, 0 to 360."""
    red, green, blue = pixels.T
    sixth = np.select(
        [brightest == red, brightest == green],
        [(green - blue) / spread % 6, (blue - red) / spread + 2],
        (red - green) / spread + 4,
    )
    return 60 * sixth


def seen_color(picture: NDArray[np.uint8]) -> str | None:
    """The colour that most of the picture (side, side, 4) has; None if it has no such colour."""
    names, counts = np.unique(names_of(picture), return_counts=True)
    if counts.max(initial=0) <= SHARE * counts.sum():
        return None
    return str(names[counts.argmax()])
