"""How a picture becomes what a tower takes: a square, for most of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.padding import num_pixels, padded

Frame = Image.Image | NDArray[np.float32]  # of a padded picture, from 0 to 1, `(height, width, 3)`
SHORTER, LONGER = 800, 1333  # pixels of the sides of a picture, where the whole is seen: ViLT's, in proportion


class Fit(IntEnum):
    """What becomes of a picture that is no square."""

    SQUEEZE = 0  # each side is resized by itself
    CROP = 1  # its shorter side is resized, and the middle is taken
    PAD = 2  # the right or the lower part becomes black, and then all of it is resized
    WHOLE = 3  # its shorter side is resized, unless the longer one would be too long; both are cut to multiples


@dataclass(frozen=True, slots=True)
class Framing:
    """A picture is resized to `resized` pixels, as `fit` says, of which the middle `side` are taken."""

    side: int  # pixels; where the whole is seen, what both sides are multiples of
    fit: Fit = Fit.SQUEEZE
    resized: int = 0  # pixels; 0: as many as `side`
    resampling: int = Image.Resampling.BICUBIC

    @property
    def enough(self) -> int:
        """Pixels that both sides of a picture need, for it not to be enlarged."""
        return self.resized or self.side

    def num_pixels(self, width: int, height: int) -> int:
        """Upper bound on what resizing a picture of this size makes, on its way too, lying or standing. A square
        is little, and not counted; where the middle is taken, the whole may be long."""
        if self.fit is Fit.PAD:
            return num_pixels(width, height, self.side)
        if self.fit is not Fit.CROP:
            return 0
        wide, high = self.size(width, height)
        return wide * high + max(wide * height, width * high)

    @property
    def longest(self) -> int:
        """Pixels of a side, where the whole is seen."""
        return LONGER * self.resized // SHORTER

    @property
    def most_pixels(self) -> int:
        """Of what is made."""
        return self.resized * self.longest if self.fit is Fit.WHOLE else self.side**2

    @property
    def pixel_bytes(self) -> int:
        """Of what is made."""
        return 12 if self.fit is Fit.PAD else 3

    def made(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of what a picture of this size becomes."""
        return self.size(width, height) if self.fit is Fit.WHOLE else (self.side, self.side)

    def _whole(self, width: int, height: int) -> tuple[int, int]:
        """As the library's processor of ViLT; which cannot read a picture so long that a side would become 0."""
        scale = min(self.resized / min(width, height), self.longest / max(width, height))
        wide, high = (int(scale * side + 0.5) // self.side * self.side for side in (width, height))
        return max(self.side, wide), max(self.side, high)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """To which a picture of this size is resized. Fractions are cut, as torchvision's Resize does."""
        if self.fit is Fit.SQUEEZE:
            return self.enough, self.enough
        if self.fit is Fit.WHOLE:
            return self._whole(width, height)
        measure = min(width, height)
        return max(1, int(self.enough * width / measure)), max(1, int(self.enough * height / measure))


def framed(image: Frame, how: Framing, own: tuple[int, int] | None = None) -> Frame:
    """As the tower takes it, RGB; itself where it is that already. `own`: its size, where it was decoded at less.

    The whole picture is resized, and then cropped: Pillow's `box`, which spares what nobody sees, is off by a level."""
    if not isinstance(image, Image.Image):
        return image
    if how.fit is Fit.PAD:
        return padded(image, how.side)
    side, size = how.side, how.size(*(own or image.size))
    resized = image if image.size == size else image.resize(size, Image.Resampling(how.resampling))
    if resized.size == (side, side) or how.fit is Fit.WHOLE:
        return resized
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return resized.crop((left, top, left + side, top + side))


def frame_of(pixels: bytes | memoryview, how: Framing, size: tuple[int, int]) -> Frame:
    """What `framed` has made of a picture of this size, from its bytes."""
    made = how.made(*size)
    if how.fit is not Fit.PAD:
        return Image.frombytes("RGB", made, pixels)
    return np.frombuffer(pixels, np.float32).reshape(*made[::-1], 3)
