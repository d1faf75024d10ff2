"""The bytes of a picture as they are sent: what is above the service's limits is made smaller here."""

from __future__ import annotations

import errno
import io
import math
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from app.errors import ServiceError
from app.images import FORMATS, decode_image, open_image

MOST_PIXELS = 500_000_000  # that are made smaller: 2 GB while they are
MOST_SIDE = 2**20
ENOUGH_SIDE = 1024  # as the page does it; or twice the model's own size
QUALITY = 95
JSON_CHARS_PER_BYTE = 4 / 3  # in base64
ROOM_BYTES = 65_536  # for the other fields
_one_at_a_time = threading.Lock()  # so that the memory of one large picture is enough


@dataclass(frozen=True, slots=True)
class Limits:
    max_body_bytes: float
    max_pixels: float
    max_side: float
    image_size: int  # of the model, in pixels

    @classmethod
    def told(cls, limits: Mapping[str, float], image_size: int) -> Limits:
        return cls(limits["max_body_bytes"], limits["max_pixels"], limits["max_side"], image_size)


def allow_large() -> None:
    """Pillow, in this process, opens what is to be made smaller."""
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS


def read(path: str, limits: Limits | None) -> bytes:
    """`limits`: None: as it is. What cannot be made smaller is sent as it is: the service says what is wrong with it.
    Raises OSError."""
    with open(path, "rb", opener=_without_waiting) as file:
        data = file.read()
    if not data:  # the service would take it for a wrong option
        raise OSError(errno.ENODATA, "the file is empty")
    if limits is None or _is_within(data, limits):
        return data
    try:
        with _one_at_a_time:
            return _smaller(data, limits)
    except ServiceError:
        return data


def _without_waiting(path: str, flags: int) -> int:
    """A named pipe that nobody writes to is empty; opening it would wait for a writer, maybe for ever."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor


def _is_within(data: bytes, limits: Limits) -> bool:
    if len(data) * JSON_CHARS_PER_BYTE + ROOM_BYTES > limits.max_body_bytes:
        return False
    try:
        width, height = Image.open(io.BytesIO(data), formats=FORMATS).size
    except Image.DecompressionBombError:
        return False
    except Exception:  # whatever Pillow raises: the service will tell
        return True
    return width * height <= limits.max_pixels and max(width, height) <= limits.max_side


def _smaller(data: bytes, limits: Limits) -> bytes:
    """Upright, over white. Raises ServiceError."""
    side = int(min(max(ENOUGH_SIDE, 2 * limits.image_size), limits.max_side, math.sqrt(limits.max_pixels)))
    image = decode_image(open_image(data, max_pixels=MOST_PIXELS, max_side=MOST_SIDE, enough_side=side))
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()
