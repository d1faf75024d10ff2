"""Pictures that cost a decoder far more than they cost their sender, and mutations of ordinary ones."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

NUM_BYTES = 19 * 2**20
SIDE = 7000  # 49 million pixels
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


def ordinary(kind: str = "JPEG", size: tuple[int, int] = (64, 48), seed: int = 0, **options: object) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(buffer, kind, **options)
    return buffer.getvalue()


# --- JPEG ---


def _segment(code: int, content: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(content) + 2) + content


def scans(number: int, side: int = SIDE) -> bytes:
    """A gray progressive JPEG whose scans say, in a few bytes each, that nothing changes in any block. They refine: the
    decoder looks at every coefficient."""
    frame = struct.pack(">BHHBBBB", 8, side, side, 1, 1, 0x11, 0)
    one_code = bytes((1, *[0] * 15))  # a Huffman table of one code, of one bit
    head = b"\xff\xd8" + _segment(0xDB, b"\0" + b"\1" * 64) + _segment(0xC2, frame)
    head += _segment(0xC4, b"\x00" + one_code + b"\x00") + _segment(0xC4, b"\x10" + one_code + b"\xe0")
    blocks = (-(-side // 8)) ** 2
    bits = ("0" + "1" * 14) * -(-blocks // 32767)  # runs of 32,767 blocks that have ended
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    first = _segment(0xDA, b"\1\1\0\0\0\0") + bytes(-(-blocks // 8))
    return head + first + (_segment(0xDA, b"\1\1\0\1\x3f\x10") + data) * (number - 1) + b"\xff\xd9"


def segments(code: int, content: bytes) -> bytes:
    """As many as there is room for, before an ordinary JPEG's."""
    one = _segment(code, content)
    return b"\xff\xd8" + one * (NUM_BYTES // len(one)) + ordinary()[2:]


# --- others ---


def empty_chunks() -> bytes:
    png, kind = ordinary("PNG"), b"abCd"
    chunk = struct.pack(">I4sI", 0, kind, zlib.crc32(kind))
    return png[:33] + chunk * (NUM_BYTES // len(chunk)) + png[33:]


def comments() -> bytes:
    """One, in blocks of one byte."""
    gif = ordinary("GIF")
    begin = 13 + (6 << (gif[10] & 7))  # behind the colours
    return gif[:begin] + b"!\xfe" + b"\1a" * (NUM_BYTES // 2) + b"\0" + gif[begin:]


def run_lengths(codes: bytes, side: int = SIDE) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(codes), 0, 0, 256, 0)
    begin = 14 + len(header) + 1024
    return struct.pack("<2sIHHI", b"BM", begin + len(codes), 0, 0, begin) + header + bytes(1024) + codes


def inner_frame(side: int = 8000) -> bytes:
    """An AVIF that says 64 x 64, and whose one frame is larger."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "AVIF", speed=10)
    size = b"ispe" + struct.pack(">III", 0, side, side)
    assert size in buffer.getvalue()
    return buffer.getvalue().replace(size, b"ispe" + struct.pack(">III", 0, 64, 64))


ATTACKS: dict[str, Callable[[], bytes]] = {
    "JPEG of 1,000 scans": lambda: scans(1000),
    "JPEG of 99 scans": lambda: scans(99),
    "JPEG, segments of Exif": lambda: segments(0xE1, b"Exif\0\0"),
    "JPEG, comments": lambda: segments(0xFE, b""),
    "PNG, empty chunks": empty_chunks,
    "GIF, comment in blocks of a byte": comments,
    "BMP, runs of a pixel": lambda: run_lengths(b"\1\0" * (NUM_BYTES // 2)),
    "BMP, lines of a pixel": lambda: run_lengths(b"\1\0\0\0" * SIDE),
    "AVIF, frame larger than it says": inner_frame,
}


def mutated(number: int, seed: int = 1) -> Iterator[bytes]:
    """So many, of all formats in turn: bytes changed, cut out, doubled, cut off."""
    generator = random.Random(seed)
    originals = [ordinary(kind, seed=each) for kind in FORMATS for each in range(3)]
    for index in range(number):
        data = bytearray(originals[index % len(originals)])
        for _ in range(generator.choice((1, 1, 2, 5, 20))):
            _mutate(data, generator)
        yield bytes(data)


def _mutate(data: bytearray, generator: random.Random) -> None:
    at = generator.randrange(max(1, len(data)))
    length = generator.choice((1, 2, 4, 16, 200))
    match generator.randrange(6):
        case 0 | 1 | 2:
            data[at : at + length] = generator.randbytes(length)
        case 3:
            del data[at : at + length]
        case 4:
            data[at:at] = data[at : at + length]
        case _:
            data[at : at + 4] = generator.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"))
