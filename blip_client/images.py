"""An image as the wire has it: base64, or a URL."""

from __future__ import annotations

import base64
import io
import os
import re
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
WITH_ALPHA = frozenset({"PA", "RGBa"})
URL = re.compile(r"\s*(https?://|data:)", re.IGNORECASE)


@runtime_checkable
class Picture(Protocol):
    """A `PIL.Image.Image`, by what is needed of it: Pillow itself is not."""

    @property
    def mode(self) -> str: ...

    def convert(self, mode: str) -> Any: ...

    def save(self, fp: Any, format: str | None = None, **options: Any) -> None: ...  # noqa: A002


File: TypeAlias = os.PathLike[str] | bytes | bytearray | memoryview | Picture
Image: TypeAlias = str | File
"""A path, the bytes of a file, a Pillow image, or a URL: http(s), which the operator must have allowed, or data."""


def is_image(value: object) -> bool:
    """Whether it is one, and not several."""
    return isinstance(value, str | os.PathLike | bytes | bytearray | memoryview | Picture)


def encoded(image: Image) -> str:
    """The string that stands for it in JSON. Reads files. Raises OSError."""
    if isinstance(image, str) and URL.match(image):
        return image
    return base64.b64encode(_bytes(image)).decode()


def _bytes(image: Image) -> bytes:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if isinstance(image, Picture):
        return _png(image)
    raise TypeError(f"an image is a path, bytes, a URL or a Pillow image, not {type(image).__name__}")


def _png(picture: Picture) -> bytes:
    """Its pixels as they are: without EXIF, which might turn them once more."""
    if picture.mode not in PNG_MODES:
        picture = picture.convert("RGBA" if picture.mode in WITH_ALPHA else "RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=b"", compress_level=1)  # fast: it is sent, not kept
    return buffer.getvalue()
