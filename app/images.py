"""Bytes of an upload -> a decoded RGB image, as a person sees it, within limits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from PIL import Image, UnidentifiedImageError

from app.errors import BadImageError, UnsupportedMediaError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MAX_SIDE_RATIO = 100
_EXIF_ORIENTATION = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(data: bytes, *, max_pixels: int, max_side: int) -> Image.Image:
    """Read the header alone and check the size. Raises UnsupportedMediaError (not one of FORMATS) and BadImageError."""
    with _broken_if_it_fails():
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            if _starts_like_an_image(data):
                raise
            raise UnsupportedMediaError(f"Not an image in one of the formats {', '.join(FORMATS)}.") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise BadImageError(f"The image has more than {max_pixels} pixels.") from None
        _check_size(image.size, max_pixels, max_side)
        return image


def decode_image(image: Image.Image) -> Image.Image:
    """The first frame of what `open_image` opened: upright, over white where it is transparent, RGB.

    Raises BadImageError.
    """
    with _broken_if_it_fails(), image:
        image.load()
        upright = _TRANSPOSITIONS.get(_orientation(image))
        rgb = _to_rgb(image)
        return rgb if upright is None else rgb.transpose(upright)


@contextmanager
def _broken_if_it_fails() -> Iterator[None]:
    try:
        yield
    except (BadImageError, UnsupportedMediaError):
        raise
    except Exception as error:  # decoders raise whatever they like on broken data
        raise BadImageError("The image is broken: it cannot be decoded.") from error


def _check_size(size: tuple[int, int], max_pixels: int, max_side: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise BadImageError(f"The image has {width} x {height} pixels; at most {max_pixels} are allowed.")
    if max(size) > max_side:
        raise BadImageError(f"The image has {width} x {height} pixels; a side may have at most {max_side}.")
    if max(size) > MAX_SIDE_RATIO * min(size):
        raise BadImageError(
            f"The image has {width} x {height} pixels; one side may be at most {MAX_SIDE_RATIO} times the other."
        )


def _starts_like_an_image(data: bytes) -> bool:
    plugins = (Image.OPEN[name] for name in FORMATS if name in Image.OPEN)
    return any(accept is not None and accept(data[:16]) for _, accept in plugins)


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):  # unreadable metadata does not make a picture unreadable
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _deep_gray_to_rgb(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(rgba, mask=rgba)
    return white


def _deep_gray_to_rgb(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float gray, scaled to 8 bits (Pillow would clip them): from 0..65535, floats from 0..1; if
    there are values outside, from the range of the values."""
    values = np.array(image, dtype=np.float32)  # (height, width)
    if not np.isfinite(values).all():
        raise BadImageError("The image is broken: it has values that are not finite.")
    transparent = values == float(image.info.get("transparency", np.nan))
    low, high = 0.0, 1.0 if image.mode == "F" else 65535.0
    if values.min() < low or values.max() > high:
        low, high = float(values.min()), max(float(values.max()), float(values.min()) + 1)
    values -= low
    values *= 255 / (high - low)
    gray = np.rint(values, out=values).astype(np.uint8)
    gray[transparent] = 255
    return Image.fromarray(gray).convert("RGB")
