"""Pictures as cameras and programs write them: the lines of cases/README.md about pictures, and siblings of each."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app import images
from app.decoding.picture import finish, open_picture
from app.decoding.protocol import Job
from app.errors import BadImageError, UnsupportedMediaError
from app.settings import Settings
from models.framing import Framing

CASES = Path(__file__).parents[1] / "cases"
SIDE = 128


def read(data: bytes) -> NDArray[np.float64]:
    """As the service does: RGB `(SIDE, SIDE, 3)`."""
    settings = Settings()
    job = Job(data, Framing(SIDE), settings.max_pixels, settings.max_side)
    return np.asarray(finish(open_picture(job), job).image, dtype=np.float64)


def case(name: str) -> bytes:
    return (CASES / name).read_bytes()


def difference(data: bytes, other: NDArray[np.float64]) -> float:
    return float(abs(read(data) - other).mean())


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("png-compressed-text-2mb.png", 0),
        ("png-text-wrong-checksum.png", 0),
        ("jpeg-no-end-marker.jpg", 3),
        ("bmp-v5-alpha-all-zero.bmp", 0),
        ("bmp-v5-real-alpha.bmp", 12),
        ("photo-8160x6144.png", 1),
        ("gif-first-frame-without-pixels.gif", 3),
    ],
)
def test_the_scene_in_colour(name: str, tolerance: float) -> None:
    assert difference(case(name), read(case("plain.png"))) <= tolerance


@pytest.mark.parametrize("name", ["tiff-16bit-white-is-zero.tif", "tiff-int32-0-to-255.tif"])
def test_the_scene_in_gray(name: str) -> None:
    gray = np.asarray(Image.fromarray(read(case("plain.png")).astype(np.uint8)).convert("L").convert("RGB"), np.float64)
    assert difference(case(name), gray) <= 3


def test_rows_that_are_missing_stay_an_error() -> None:
    with pytest.raises(BadImageError, match="rows are missing"):
        read(case("jpeg-half.jpg"))


def test_what_is_not_supported_is_not_said_to_be_broken() -> None:
    with pytest.raises(BadImageError, match="This kind of TIFF is not supported"):
        read(case("tiff-gray-alpha-16bit.tif"))


def test_heic_is_read_with_the_extra_and_named_without(monkeypatch: pytest.MonkeyPatch) -> None:
    assert difference(case("photo.heic"), read(case("plain.png"))) <= 6
    monkeypatch.setattr(images, "FORMATS", tuple(one for one in images.FORMATS if one != "HEIF"))
    with pytest.raises(UnsupportedMediaError, match=r"HEIC and HEIF .* JPEG or PNG"):
        read(case("photo.heic"))


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"msf1", b"hevc"])
def test_heif_of_any_brand_is_known(monkeypatch: pytest.MonkeyPatch, brand: bytes) -> None:
    monkeypatch.setattr(images, "FORMATS", tuple(one for one in images.FORMATS if one != "HEIF"))
    with pytest.raises(UnsupportedMediaError, match="HEIC"):
        read(b"\0\0\0\x18ftyp" + brand + bytes(4) + b"mif1" + brand + bytes(200))


# --- siblings ---


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_without_its_end(mode: str, options: dict[str, object]) -> None:
    whole = saved(photo().convert(mode), "JPEG", **options)
    assert whole.endswith(b"\xff\xd9")
    expected = read(whole)
    for ending in (b"", b"\xff"):
        assert difference(whole[:-2] + ending, expected) == 0


@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_a_jpeg_that_is_cut_off(share: float) -> None:
    whole = saved(photo((512, 512)), "JPEG", quality=95)
    with pytest.raises(BadImageError):
        read(whole[: int(len(whole) * share)])


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


@pytest.mark.parametrize(
    "kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"gAMA", b"tIME", b"sPLT", b"abCd", b"eXIf", b"pHYs"]
)
@pytest.mark.parametrize("content", [b"", b"\0" * 9, b"a\0\0" + b"x" * 99])
@pytest.mark.parametrize("checksum", [None, 0])
@pytest.mark.parametrize("at", [33, -12])
def test_no_chunk_beside_the_pixels_fails_a_png(kind: bytes, content: bytes, checksum: int | None, at: int) -> None:
    whole = saved(photo(), "PNG")
    assert difference(whole[:at] + chunk(kind, content, checksum) + whole[at:], read(whole)) == 0


def test_what_a_png_needs_is_kept() -> None:
    palette = photo().quantize(16)
    palette.info["transparency"] = bytes([0] * 8 + [255] * 8)
    exif = Image.Exif()
    exif[0x0112] = 3
    for whole in (saved(palette, "PNG"), saved(photo(), "PNG", exif=exif)):
        with_text = whole[:33] + chunk(b"tEXt", b"a\0b", checksum=1) + whole[33:]
        assert difference(with_text, read(whole)) == 0
    assert difference(saved(photo(), "PNG", exif=exif), read(saved(photo().rotate(180), "PNG"))) == 0


def test_a_png_whose_pixels_are_wrong_stays_an_error() -> None:
    whole = bytearray(saved(photo(), "PNG"))
    whole[60] ^= 255
    with pytest.raises(BadImageError):
        read(bytes(whole))


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_gray_tiff(bits: int, order: str, white_is_zero: bool) -> None:
    """As written by hand: Pillow does not write every kind."""
    gray = np.asarray(photo().convert("L"), np.float64)
    largest = 65535 if bits == 32 else 2**bits - 1
    values = np.rint((255 - gray if white_is_zero else gray) * (largest / 255)).astype(f"{order}u{bits // 8}")
    entries = {256: SIDE, 257: SIDE, 258: bits, 259: 1, 262: 0 if white_is_zero else 1, 273: 0, 277: 1, 278: SIDE}
    entries |= {279: values.nbytes} | ({339: 2} if bits == 32 else {})
    begin = 8 + 2 + 12 * len(entries) + 4
    entries[273] = begin
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    for tag in sorted(entries):
        head += struct.pack(order + "HHII", tag, 4, 1, entries[tag])
    expected = np.repeat(gray[..., None], 3, axis=-1)
    assert difference(head + struct.pack(order + "I", 0) + values.tobytes(), expected) <= 1


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("1", kind) for kind in ("PNG", "TIFF", "BMP", "GIF")),
        *(("L", kind) for kind in ("PNG", "TIFF", "BMP", "JPEG", "GIF")),
        *(("LA", kind) for kind in ("PNG", "TIFF")),
        *(("P", kind) for kind in ("PNG", "TIFF", "BMP", "GIF")),
        *(("RGB", kind) for kind in ("PNG", "TIFF", "BMP", "JPEG", "WEBP", "AVIF")),
        *(("RGBA", kind) for kind in ("PNG", "TIFF", "BMP", "WEBP", "AVIF")),
        *(("CMYK", kind) for kind in ("TIFF", "JPEG")),
        ("YCbCr", "JPEG"),
        ("LAB", "TIFF"),
        ("I;16", "PNG"),
        ("I;16", "TIFF"),
        ("I", "TIFF"),
        ("F", "TIFF"),
    ],
)
def test_every_mode_is_read_as_it_looks(mode: str, kind: str) -> None:
    """Of one colour, so that no encoder changes it much."""
    colour = (
        (200, 200, 200) if mode in ("L", "LA", "I;16", "I", "F") else (255, 255, 255) if mode == "1" else (40, 120, 200)
    )
    image = Image.new("RGB", (SIDE, SIDE), colour)
    if mode in ("I;16", "I", "F"):
        value = {"I;16": 200 * 257, "I": 200, "F": 200 / 255}[mode]
        image = Image.new(mode, (SIDE, SIDE), value)
    elif mode == "LAB":
        from PIL import ImageCms

        to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        lab = ImageCms.applyTransform(image, to_lab)
        assert lab is not None
        image = lab
    else:
        image = image.convert(mode)
    data = saved(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert abs(read(data).mean(axis=(0, 1)) - colour).max() <= 4
