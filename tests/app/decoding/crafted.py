"""Pictures with more parts than they need, of every format: those that cost too much once, and their siblings."""

from __future__ import annotations

import struct
import zlib

from tests.app.support import encoded, picture

SIDE = 64
JPEG, PNG, GIF, AVIF, TIFF = (
    encoded(picture(size=(SIDE, SIDE)), kind) for kind in ("JPEG", "PNG", "GIF", "AVIF", "TIFF")
)
WEBP = encoded(picture(size=(SIDE, SIDE)), "WEBP", lossless=True)


def segment(code: int, payload: bytes = b"") -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(payload) + 2) + payload


def jpeg(more: bytes) -> bytes:
    return JPEG[:2] + more + JPEG[2:]


def jpeg_scans(number: int, size: tuple[int, int] = (SIDE, SIDE)) -> bytes:
    """Progressive; its last scan comes again and again."""
    data = encoded(picture(80, size, "L"), "JPEG", progressive=True)
    end = data.rindex(b"\xff\xd9")
    last = data[data.rindex(b"\xff\xc4") : end]
    return data[:end] + last * (number - data.count(b"\xff\xda")) + data[end:]


def chunk(kind: bytes, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png(more: bytes) -> bytes:
    """Before the pixels."""
    at = PNG.index(b"IDAT") - 4
    return PNG[:at] + more + PNG[at:]


def png_tail(more: bytes) -> bytes:
    return PNG[:-12] + more + PNG[-12:]


def gif(more: bytes) -> bytes:
    """Before the first image."""
    at = 13 + (6 << (GIF[10] & 7) if GIF[10] & 0x80 else 0)
    return GIF[:at] + more + GIF[at:]


def gif_comment(num_blocks: int) -> bytes:
    return b"!\xfe" + b"\x01x" * num_blocks + b"\0"


def webp(more: bytes) -> bytes:
    """Extended: with chunks before the pixels."""
    side = struct.pack("<I", SIDE - 1)[:3]
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + side + side + more + WEBP[12:]
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def webp_frames(number: int) -> bytes:
    pictures = [picture(colour, (SIDE, SIDE)) for colour in ("red", "blue")]
    data = encoded(pictures[0], "WEBP", save_all=True, append_images=pictures[1:], lossless=True)
    at = data.index(b"ANMF")
    (length,) = struct.unpack_from("<I", data, at + 4)
    body = data[12:at] + data[at : at + 8 + length + length % 2] * number
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def box(kind: bytes, payload: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


def avif(more: bytes) -> bytes:
    """Before the box of what is in it."""
    at = AVIF.index(b"meta") - 4
    return AVIF[:at] + more + AVIF[at:]


def avif_in_meta(more: bytes) -> bytes:
    """As its first children; what lies where is wrong then."""
    at = AVIF.index(b"meta") - 4
    (length,) = struct.unpack_from(">I", AVIF, at)
    head = struct.pack(">I4s", length + len(more), b"meta") + AVIF[at + 8 : at + 12]
    return AVIF[:at] + head + more + AVIF[at + 12 :]


def avif_with_inner_frame(side: int) -> bytes:
    """Its header says 64 x 64."""
    data = encoded(picture(size=(side, side)), "AVIF", speed=10, quality=10)
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", SIDE, SIDE) + data[at + 8 :]


def tiff(more: bytes = b"", following: int = 0) -> bytes:
    """With further entries, and the place of the next directory; -1: that of this one."""
    (at,) = struct.unpack_from("<I", TIFF, 4)
    (number,) = struct.unpack_from("<H", TIFF, at)
    entries = TIFF[at + 2 : at + 2 + 12 * number]
    begin = len(TIFF)
    directory = struct.pack("<H", number + len(more) // 12) + entries + more
    next_one = struct.pack("<I", begin if following == -1 else following)
    return TIFF[:4] + struct.pack("<I", begin) + TIFF[8:] + directory + next_one


def tiff_entry(tag: int, kind: int, number: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, number, value)


def tiff_strips(number: int) -> bytes:
    """Of one row, which is always the same."""
    begin = 8 + 2 + 12 * 9 + 4
    pixels = begin + 8 * number
    tags = [
        (256, 4, 1, SIDE),
        (257, 4, 1, SIDE),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, number, begin),
    ]
    tags += [(277, 3, 1, 1), (278, 4, 1, 1), (279, 4, number, begin + 4 * number)]
    directory = b"".join(tiff_entry(*tag) for tag in tags) + bytes(4)
    values = struct.pack("<I", pixels) * number + struct.pack("<I", SIDE) * number
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + values + bytes(SIDE)


def bmp_runs(width: int, height: int, runs: bytes) -> bytes:
    """Run lengths of eight bits."""
    palette, begin = bytes(1024), 14 + 40 + 1024
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", begin + len(runs), 0, 0, begin) + head + palette + runs
