"""Pictures that would cost too much are refused by what they are made of, before anything of them is decoded."""

from __future__ import annotations

import struct
import zlib

import pytest
from PIL import Image

from app.decoding.look import MOST_PARTS, MOST_SCANS, look
from app.decoding.picture import finish, open_picture
from app.decoding.protocol import Job
from app.errors import BadImageError
from app.images import FORMATS
from models.framing import Framing
from tests.app.decoding import crafted
from tests.app.decoding.crafted import box, chunk, segment, tiff_entry
from tests.app.support import encoded, picture

MANY = MOST_PARTS + 1
SMALL_IDATS = chunk(b"IDAT") * MANY
ICC = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1000)))


def opened(data: bytes) -> None:
    open_picture(Job(data, Framing(32), 50_000_000, 16_384))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(crafted.jpeg_scans(MOST_SCANS + 1), "100 scans", id="JPEG: scans"),
        pytest.param(crafted.jpeg(segment(0xE1, b"Exif\0\0") * 101), "100 segments of Exif", id="JPEG: Exif"),
        pytest.param(crafted.jpeg(segment(0xE1) * MANY), "1000 segments", id="JPEG: APP1"),
        pytest.param(crafted.jpeg(segment(0xE2, b"ICC_PROFILE\0") * MANY), "1000 segments", id="JPEG: ICC"),
        pytest.param(crafted.jpeg(segment(0xFE) * MANY), "1000 segments", id="JPEG: COM"),
        pytest.param(crafted.jpeg(b"\xff\xd0" * MANY), "1000 segments", id="JPEG: restarts before the scan"),
        pytest.param(crafted.jpeg(b"\xff\xf0" * MANY), "1000 segments", id="JPEG: extensions, in which Pillow goes on"),
        pytest.param(crafted.jpeg(segment(0xED, b"8BIM" * MANY)), "1000 segments", id="JPEG: Photoshop's blocks"),
        pytest.param(crafted.jpeg(b"\xff\xd0" + bytes(66_000)), "65536 bytes between", id="JPEG: filling"),
        pytest.param(crafted.jpeg(b"\xff" * 66_000), "65536 bytes between", id="JPEG: padding"),
        pytest.param(crafted.png(chunk(b"abCd") * MANY), "1000 chunks", id="PNG: empty chunks"),
        pytest.param(crafted.png_tail(chunk(b"tEXt") * MANY), "1000 chunks", id="PNG: chunks after the pixels"),
        pytest.param(crafted.png(ICC * 101), "1000 chunks", id="PNG: chunks to be inflated"),
        pytest.param(crafted.png(SMALL_IDATS * 2), "chunks of pixels", id="PNG: empty IDATs"),
        pytest.param(crafted.png(chunk(b"fdAT") * 2 * MANY), "chunks of pixels", id="PNG: empty fdATs"),
        pytest.param(crafted.gif(crafted.gif_comment(MANY)), "1000 sub-blocks", id="GIF: a long comment"),
        pytest.param(crafted.gif(crafted.gif_comment(1) * MANY), "1000 sub-blocks", id="GIF: many comments"),
        pytest.param(crafted.gif(b"!\x01\0\0" * MANY), "1000 sub-blocks", id="GIF: empty extensions"),
        pytest.param(
            crafted.gif(b"!\xf9\0" + b"\x01x" * MANY + b"\0"), "1000 sub-blocks", id="GIF: after an empty block"
        ),
        pytest.param(crafted.gif(b"!\xff\x0bNETSCAPE2.0\0" + b"\x01x" * MANY), "1000 sub-blocks", id="GIF: NETSCAPE"),
        pytest.param(crafted.gif(bytes(66_000)), "65536 bytes between", id="GIF: filling"),
        pytest.param(crafted.webp(b"JUNK\0\0\0\0" * MANY), "1000 chunks", id="WebP: chunks"),
        pytest.param(crafted.webp_frames(MANY + 200), "chunks of pixels", id="WebP: frames"),
        pytest.param(crafted.avif(box(b"free") * MANY), "1000 boxes", id="AVIF: boxes"),
        pytest.param(crafted.avif_in_meta(box(b"free") * MANY), "1000 boxes", id="AVIF: boxes in a box"),
        pytest.param(
            crafted.avif_in_meta(box(b"iloc", struct.pack(">BBHBBI", 2, 0, 0, 0, 0, MANY))),
            "1000 boxes",
            id="AVIF: items",
        ),
        pytest.param(
            crafted.avif_in_meta(box(b"ipma", struct.pack(">II", 0, MANY))), "1000 boxes", id="AVIF: properties"
        ),
        pytest.param(crafted.tiff(tiff_entry(40_000, 1, 1, 0) * MANY), "1000 tags", id="TIFF: tags"),
        pytest.param(crafted.tiff_strips(2**16 + 1), "65536 strips", id="TIFF: strips"),
        pytest.param(crafted.bmp_runs(7000, 7000, b"\1\1\0\0" * 7000), "pixels in run lengths", id="BMP: run lengths"),
        pytest.param(crafted.bmp_runs(64, 64, b"\0\2\0\0" * 3000), "more run lengths than", id="BMP: that say nothing"),
    ],
)
def test_refused_before_it_is_decoded(data: bytes, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    assert len(data) < 2_000_000
    with pytest.raises(BadImageError, match=told):
        opened(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(crafted.jpeg_scans(MOST_SCANS), id="JPEG: scans"),
        pytest.param(
            crafted.jpeg(segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000)) * 60), id="JPEG: a large profile"
        ),
        pytest.param(crafted.jpeg(segment(0xFE) * 900 + b"\xff" * 100), id="JPEG: comments, padding"),
        pytest.param(crafted.JPEG + crafted.jpeg_scans(200), id="JPEG: another one behind it"),
        pytest.param(crafted.png(chunk(b"tEXt", b"a\0b") * 900), id="PNG: texts"),
        pytest.param(crafted.png(SMALL_IDATS), id="PNG: IDATs"),
        pytest.param(crafted.PNG + bytes(100_000), id="PNG: something behind it"),
        pytest.param(crafted.gif(crafted.gif_comment(900)), id="GIF: a comment"),
        pytest.param(crafted.GIF[:-1] + b",\0\0\0\0\1\0\1\0\0\x02\x02\x44\x01\0" * 5000 + b";", id="GIF: frames"),
        pytest.param(crafted.webp_frames(100), id="WebP: frames"),
        pytest.param(crafted.avif(b""), id="AVIF"),
        pytest.param(crafted.tiff(following=-1), id="TIFF: a directory that is its own next"),
        pytest.param(crafted.tiff(tiff_entry(40_000, 1, 1, 0) * 900), id="TIFF: tags"),
        pytest.param(crafted.bmp_runs(64, 64, b"\x40\1\0\0" * 64 + b"\0\1"), id="BMP: run lengths"),
    ],
)
def test_not_so_many_are_fine(data: bytes) -> None:
    job = Job(data, Framing(32), 50_000_000, 16_384)
    assert finish(open_picture(job), job).image.size == (32, 32)


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "HEIF"])  # which is only read
def test_cut_off_anywhere_the_look_says_nothing(kind: str) -> None:
    data = encoded(picture(), kind)
    assert [look(data[:end]) for end in range(len(data))] == [1] * len(data)


def test_scans() -> None:
    assert look(crafted.JPEG) == 1
    assert look(encoded(picture(), "JPEG", progressive=True)) == 10
    assert look(encoded(picture(80, mode="L"), "JPEG", progressive=True)) == 6
    assert look(encoded(picture(), "JPEG", progressive=True) + crafted.JPEG) == 10, "those behind its end are another's"


def test_what_is_cheap_and_what_is_dear() -> None:
    def seconds(data: bytes) -> float:
        return open_picture(Job(data, Framing(32), 50_000_000, 16_384)).seconds

    size = (1000, 1000)
    plain, progressive = (encoded(picture(size=size), "JPEG", progressive=is_so) for is_so in (False, True))
    assert seconds(plain) < seconds(progressive) < seconds(crafted.jpeg_scans(100, size))
    assert seconds(plain) < seconds(encoded(picture(size=size)))
    runs = crafted.bmp_runs(1000, 1000, b"\xff\1" * 4)
    assert seconds(runs) > 10 * seconds(encoded(picture(size=size), "BMP"))
