"""Bytes of an upload -> an RGB image as a person sees it, or a clear refusal."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.errors import BadImageError, ServiceError, UnsupportedMediaError
from app.images import FORMATS, bitmap_bytes, decode_image, open_image
from tests.app.support import RED, encoded, picture

HALVES = Image.fromarray(np.repeat(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8), 64, axis=0).repeat(32, axis=1))

WRITTEN = [kind for kind in FORMATS if kind != "HEIF"]  # which is only read


def decode(data: bytes, max_pixels: int = 50_000_000, max_side: int = 16_384) -> Image.Image:
    return decode_image(open_image(data, max_pixels=max_pixels, max_side=max_side))


def colour(data: bytes) -> tuple[int, int, int]:
    """Of the middle of the decoded picture."""
    image = decode(data)
    assert image.mode == "RGB"
    red, green, blue = np.asarray(image)[image.height // 2, image.width // 2].tolist()
    return red, green, blue


def png_header(width: int, height: int) -> bytes:
    """A PNG whose picture is nothing but zeros, well compressed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    compressor = zlib.compressobj(9)
    row = bytes(width // 8 + 2)
    data = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", WRITTEN)
def test_every_allowed_format(kind: str) -> None:
    red, green, blue = colour(encoded(picture("red"), kind))
    assert red > 240
    assert green < 12
    assert blue < 12


@pytest.mark.parametrize(
    ("image", "kind", "options", "expected"),
    [
        (picture((255, 0, 0, 0), mode="RGBA"), "PNG", {}, (255, 255, 255)),
        (picture((255, 0, 0, 255), mode="RGBA"), "PNG", {}, (255, 0, 0)),
        (picture((0, 0, 0, 128), mode="RGBA"), "PNG", {}, (127, 127, 127)),
        (picture((0, 0), mode="LA"), "PNG", {}, (255, 255, 255)),
        (picture((255, 0, 0, 0), mode="RGBA"), "WEBP", {"lossless": True, "exact": True}, (255, 255, 255)),
        (picture(7, mode="L"), "PNG", {"transparency": 7}, (255, 255, 255)),
        (picture((1, 2, 3)), "PNG", {"transparency": (1, 2, 3)}, (255, 255, 255)),
        (picture("red").convert("P"), "PNG", {}, (255, 0, 0)),
        (picture(5, mode="P"), "GIF", {"transparency": 5}, (255, 255, 255)),
        (picture(1, mode="1"), "PNG", {}, (255, 255, 255)),
        (picture((0, 255, 255, 0), mode="CMYK"), "TIFF", {}, (255, 0, 0)),
        (picture((255, 255, 0, 0), mode="CMYK"), "JPEG", {}, (0, 0, 254)),
        (picture("blue").convert("YCbCr"), "TIFF", {}, (0, 0, 254)),
    ],
)
def test_every_mode(image: Image.Image, kind: str, options: dict[str, int], expected: tuple[int, ...]) -> None:
    assert np.abs(np.subtract(colour(encoded(image, kind, **options)), expected)).max() <= 2


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (np.full((8, 8), 0x8000, np.uint16), "PNG", 128),
        (np.full((8, 8), 300, np.uint16), "PNG", 1),
        (np.full((8, 8), 0xFFFF, np.uint16), "TIFF", 255),
        (np.full((8, 8), 0.5, np.float32), "TIFF", 128),
        (np.array([[-50.0, 150.0]] * 8, np.float32).repeat(4, axis=1), "TIFF", 255),
        (np.array([[0, 2**31 - 1]] * 8, np.int32).repeat(4, axis=1), "TIFF", 255),
    ],
)
def test_deep_gray_is_scaled_not_clipped(values: NDArray[Any], kind: str, expected: int) -> None:
    assert colour(encoded(Image.fromarray(values), kind)) == (expected,) * 3


def test_transparent_value_of_16_bit_gray() -> None:
    gray = Image.fromarray(np.full((8, 8), 300, np.uint16))
    data = encoded(gray)
    transparency = b"tRNS" + struct.pack(">H", 300)
    chunk = struct.pack(">I", 2) + transparency + struct.pack(">I", zlib.crc32(transparency))
    at = data.index(b"IDAT") - 4
    assert colour(data[:at] + chunk + data[at:]) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(HALVES, "JPEG", exif=exif, quality=95))
    assert image.size == ((64, 64))
    red_at = {1: (8, 32), 2: (56, 32), 3: (56, 32), 4: (8, 32), 5: (32, 8), 6: (32, 8), 7: (32, 56), 8: (32, 56)}
    red, _, blue = image.getpixel(red_at[orientation])  # type: ignore[misc]
    assert red > 200 > 50 > blue


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_ignored() -> None:
    data = encoded(picture("red"), "JPEG", exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff broken")
    assert colour(data)[0] > 240


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_first_frame_of_an_animation(kind: str) -> None:
    red, _, blue = colour(encoded(picture("red"), kind, save_all=True, append_images=[picture("blue")]))
    assert red > 240
    assert blue < 12


def test_decoded_means_decoded() -> None:
    image = decode(RED)
    assert getattr(image, "fp", None) is None
    assert image.getpixel((0, 0)) == (255, 0, 0)


def damaged(data: bytes) -> bytes:
    """In the middle of the compressed data."""
    middle = len(data) // 2
    return data[:middle] + bytes(64) + data[middle + 64 :]


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(NOISE, "JPEG")[:2000], id="truncated JPEG"),
        pytest.param(encoded(NOISE)[:5000], id="truncated PNG"),
        pytest.param(RED[:20], id="PNG cut in its header"),
        pytest.param(encoded(NOISE, "WEBP")[:500], id="truncated WebP"),
        pytest.param(encoded(NOISE, "GIF")[:1000], id="truncated GIF"),
        pytest.param(encoded(NOISE, "BMP")[:500], id="truncated BMP"),
        pytest.param(encoded(NOISE, "TIFF", compression="tiff_lzw")[:800], id="truncated TIFF"),
        pytest.param(encoded(NOISE, "AVIF")[:800], id="truncated AVIF"),
        pytest.param(damaged(encoded(NOISE)), id="PNG with corrupt data"),
        pytest.param(encoded(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"), id="NaN"),
        pytest.param(encoded(picture(size=(1, 30000), mode="L", colour=0)), id="1 x 30000"),
        pytest.param(encoded(picture(size=(101, 1), mode="L", colour=0)), id="101 x 1"),
        pytest.param(encoded(picture(size=(16_385, 200), mode="1", colour=0)), id="a side too long"),
    ],
)
def test_broken_or_out_of_bounds(data: bytes) -> None:
    with pytest.raises(BadImageError):
        decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a text that is named photo.jpg",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        encoded(picture(), "ICO"),
        encoded(picture(), "PPM"),
        bytes(range(256)) * 20,
    ],
)
def test_not_an_image_of_an_allowed_format(data: bytes) -> None:
    with pytest.raises(UnsupportedMediaError):
        decode(data)


def test_decompression_bomb_is_known_from_its_header() -> None:
    data = png_header(13_000, 13_000)
    assert len(data) < 30_000
    with pytest.raises(BadImageError, match=r"13000 x 13000|more than"):
        decode(data)


@pytest.mark.parametrize("kind", WRITTEN)
def test_size_is_checked_before_anything_is_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every plugin's `load` calls that of Image."""
    data = encoded(picture(), kind)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(pytest.fail.Exception):
        decode(data)
    with pytest.raises(BadImageError, match="at most 1023"):
        decode(data, max_pixels=1023)


SHORT, LONG, SLONG8 = 3, 4, 17


def tiled_tiff(*sides: tuple[int, int, int]) -> bytes:
    """100 x 100 gray pixels in deflated tiles of zeros; `sides`: tag, type, value of 322 (width) and 323 (length)."""
    pixels = zlib.compress(bytes(128 * 128))
    tags = [(256, LONG, 100), (257, LONG, 100), (258, SHORT, 8), (259, SHORT, 8), (262, SHORT, 1), (277, SHORT, 1)]
    begin = 8 + 2 + 12 * (len(tags) + len(sides) + 2) + 4
    tags += [*sides, (324, LONG, begin), (325, LONG, len(pixels))]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4) + pixels


def test_tiles_may_be_larger_than_the_picture_within_the_limit() -> None:
    data = tiled_tiff((322, LONG, 128), (323, SHORT, 128))
    assert decode(data, max_pixels=128 * 128).size == (100, 100)
    with pytest.raises(BadImageError, match="tiles of 128 x 128 pixels; at most 16383"):
        decode(data, max_pixels=128 * 128 - 1)


@pytest.mark.parametrize(
    "sides",
    [
        pytest.param([(322, LONG, 2**15), (323, LONG, 2**15)], id="large"),
        pytest.param([(322, LONG, 2**15), (322, LONG, 128), (323, LONG, 128)], id="doubled: libtiff takes the first"),
        pytest.param([(322, SLONG8, 0), (323, SLONG8, 0)], id="of a type that only libtiff knows"),
        pytest.param([(322, LONG, 128)], id="half"),
    ],
)
def test_tile_bomb(sides: list[tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(BadImageError, match="tiles"):
        decode(tiled_tiff(*sides))


@pytest.mark.parametrize(
    ("image", "kind", "options", "bytes_per_pixel"),
    [
        (picture(), "BMP", {}, 4),
        (picture(), "JPEG", {}, 4),
        (picture(), "JPEG", {"progressive": True}, 4 + 3 * 2),
        (picture(mode="L", colour=1), "JPEG", {}, 1 + 4),
        (picture(mode="L", colour=1), "PNG", {}, 8),
        (picture(mode="RGBA"), "PNG", {}, 8),
        (picture(mode="I;16", colour=1), "PNG", {}, 8),
        (picture(mode="F", colour=1), "TIFF", {}, 8),
        (picture(), "WEBP", {}, 16),
        (picture(), "AVIF", {}, 16),
    ],
)
def test_bytes_that_decoding_will_hold(
    image: Image.Image, kind: str, options: dict[str, Any], bytes_per_pixel: int
) -> None:
    opened = open_image(encoded(image, kind, **options), max_pixels=10_000, max_side=100)
    assert bitmap_bytes(opened) == bytes_per_pixel * 32 * 32


def test_a_picture_that_is_turned_is_held_twice() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = open_image(encoded(picture(), "JPEG", exif=exif), max_pixels=10_000, max_side=100)
    assert bitmap_bytes(opened) == 2 * 4 * 32 * 32


def test_limits_are_inclusive() -> None:
    assert decode(encoded(picture(size=(20, 10))), max_pixels=200, max_side=20).size == (20, 10)
    with pytest.raises(BadImageError, match="at most 199"):
        decode(encoded(picture(size=(20, 10))), max_pixels=199)


@pytest.mark.parametrize("kind", WRITTEN)
def test_no_damage_is_anything_but_a_refusal(kind: str) -> None:
    """Each picture, with one byte in many overwritten: decoded, or refused in our own words."""
    good = encoded(NOISE.resize((24, 24)), kind)
    random = np.random.default_rng(1)
    for _ in range(60):
        data = bytearray(good)
        for position in random.integers(0, len(data), 3):
            data[position] = random.integers(256)
        try:
            decode(bytes(data))
        except ServiceError as refusal:
            assert isinstance(refusal, BadImageError | UnsupportedMediaError)  # noqa: PT017


def test_jpeg_with_a_bitmap_in_the_same_file() -> None:
    """What phones call MPO: its first picture counts."""
    buffer = io.BytesIO()
    picture("red").save(buffer, "MPO", save_all=True, append_images=[picture("blue")])
    assert colour(buffer.getvalue())[0] > 240
