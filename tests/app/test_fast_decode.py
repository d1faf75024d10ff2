"""BLIP_FAST_DECODE: JPEGs decoded at a reduced size, no smaller than the tower needs."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.decoding.protocol import Decoded, HoldBytes, Job
from app.errors import BadImageError
from app.images import FORMATS, bitmap_bytes, decode_image, open_image
from models.fake.runner import fake_models
from tests.app.support import InlineDecoder, encoded, run, serving, until_ready
from tests.app.test_images import HALVES, decode

PHOTO = Image.fromarray(
    np.add.outer(np.arange(300), np.arange(400))[..., None].repeat(3, 2).astype(np.uint8)
)  # 400 x 300


def reduced(data: bytes, enough_side: int) -> Image.Image:
    return open_image(data, max_pixels=400 * 300, max_side=400, enough_side=enough_side)


@pytest.mark.parametrize(
    ("enough_side", "size"),
    [
        (301, (400, 300)),
        (151, (400, 300)),
        (150, (200, 150)),
        (75, (100, 75)),
        (38, (100, 75)),
        (37, (50, 38)),
        (1, (50, 38)),
    ],
)
def test_reduced_jpeg_has_enough_pixels(enough_side: int, size: tuple[int, int]) -> None:
    assert decode_image(reduced(encoded(PHOTO, "JPEG"), enough_side)).size == size


def test_reduced_jpeg_looks_the_same() -> None:
    data = encoded(PHOTO.convert("L").resize((400, 300)).point(lambda value: value // 2), "JPEG", quality=95)
    whole, half = decode(data).resize((50, 38)), decode_image(reduced(data, 150)).resize((50, 38))
    assert np.abs(np.asarray(whole, int) - np.asarray(half, int)).mean() < 2


@pytest.mark.parametrize("kind", sorted({*FORMATS} - {"JPEG", "HEIF"}))
def test_no_other_format_is_reduced(kind: str) -> None:
    assert decode_image(reduced(encoded(PHOTO, kind), 10)).size == (400, 300)


def test_reduced_jpeg_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = decode_image(reduced(encoded(HALVES.resize((400, 300)), "JPEG", exif=exif), 75))
    assert image.size == (75, 100)
    (red, _, _), (_, _, blue) = image.getpixel((37, 10)), image.getpixel((37, 90))  # type: ignore[misc]
    assert min(red, blue) > 200


def test_limits_are_of_the_size_before_it_is_reduced() -> None:
    with pytest.raises(BadImageError, match="400 x 300 pixels; at most 119999"):
        open_image(encoded(PHOTO, "JPEG"), max_pixels=400 * 300 - 1, max_side=400, enough_side=10)


@pytest.mark.parametrize(("options", "coefficients"), [({}, 0), ({"progressive": True}, 2 * 3 * 400 * 300)])
def test_bytes_that_decoding_a_reduced_jpeg_will_hold(options: dict[str, Any], coefficients: int) -> None:
    assert bitmap_bytes(reduced(encoded(PHOTO, "JPEG", **options), 75)) == 4 * 100 * 75 + coefficients


class SeeingDecoder(InlineDecoder):
    """Keeps the jobs that it is given."""

    def __init__(self) -> None:
        self.seen: list[Job] = []

    async def decode(self, job: Job, hold: HoldBytes) -> Decoded:
        self.seen.append(job)
        return await super().decode(job, hold)


@pytest.mark.parametrize(("settings", "enough_side"), [({"fast_decode": True}, 32), ({}, None)])
def test_only_the_setting_reduces(settings: dict[str, bool], enough_side: int | None) -> None:
    data, decoder = encoded(PHOTO, "JPEG"), SeeingDecoder()

    async def test() -> None:
        async with serving(lambda _: fake_models(), lambda *_: decoder, **settings) as (client, _):
            await until_ready(client)
            response = await client.post("/embed", content=data, headers={"content-type": "image/jpeg"})
            assert response.status_code == 200

    run(test)
    [job] = decoder.seen
    assert (job.enough_side, job.framing.side) == (enough_side, 32)


def test_without_the_setting_pixels_are_those_of_the_library() -> None:
    data = encoded(PHOTO, "JPEG")
    assert decode(data).tobytes() == Image.open(io.BytesIO(data)).tobytes()
