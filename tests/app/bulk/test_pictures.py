"""Pictures above the service's limits are made smaller, as a person sees them; others are sent as they are."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from app.bulk.pictures import Limits, allow_large, read
from tests.app.support import encoded, picture

LIMITS = Limits(max_body_bytes=2**20, max_pixels=4_000_000, max_side=16_384, image_size=64)


def sent(data: bytes, limits: Limits | None = LIMITS) -> bytes:
    Path("a").write_bytes(data)
    return read("a", limits)


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("data", [encoded(picture(size=(2000, 2000))), b"no picture", b"\x89PNG\r\n\x1a\n broken"])
def test_what_is_within_or_cannot_be_read_is_sent_as_it_is(data: bytes) -> None:
    assert sent(data) == data


def test_too_many_pixels() -> None:
    image = opened(sent(encoded(picture(size=(2400, 1800)), "JPEG")))
    assert (image.size, image.format) == ((1024, 768), "JPEG")
    assert opened(sent(encoded(picture(size=(2400, 1800))), replace(LIMITS, image_size=700))).size == (1400, 1050)


def test_more_pixels_than_pillow_opens_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    allow_large()
    assert opened(sent(encoded(picture(size=(2400, 1800))))).size == (1024, 768)


def test_too_many_bytes() -> None:
    noise = Image.frombytes("RGB", (650, 500), os.urandom(650 * 500 * 3))
    data = encoded(noise)
    assert len(data) < LIMITS.max_body_bytes < len(data) * 4 / 3  # it is base64 that is too long
    assert opened(sent(data)).size == (650, 500)
    assert len(sent(data)) < len(data)
    assert sent(data, None) == data


def test_it_is_upright_and_over_white() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert opened(sent(encoded(picture(size=(2400, 1800)), "JPEG", exif=exif))).size == (768, 1024)
    clear = encoded(picture((255, 0, 0, 0), (2400, 1800), "RGBA"))
    assert min(opened(sent(clear)).convert("L").tobytes()) > 250


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        read("none", LIMITS)
