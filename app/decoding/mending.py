"""What is wrong in many files that people have, and that a viewer shows all the same: taken out of the bytes before
Pillow opens them. What is whole comes back as it is; what is broken in other ways is left to Pillow, which says so."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from hashlib import sha256

from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Ancillary chunks that change what a person sees; all others are passed over, unread, however wrong they are.
_SEEN_CHUNKS = {b"tRNS", b"eXIf"}
_GIF_IMAGE, _GIF_EXTENSION = 0x2C, 0x21
JPEG_END = b"\xff\xd9"
# Two ways to go on for a JPEG without its end. Where rows are missing, they become different rows.
ENDINGS = (bytes(64) + JPEG_END, b"\xaa" * 64 + JPEG_END)
ROWS_AT_ONCE = 64


def mended(data: bytes) -> bytes:
    """The same picture, so that Pillow can open it."""
    try:
        if data.startswith(PNG_SIGNATURE):
            return _png_of_pixels(data)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return _gif_of_pixels(data)
    except (IndexError, struct.error):  # cut off
        pass
    return data


def pixel_digest(image: Image.Image) -> bytes:
    """SHA-256 of its pixels, some rows at a time: a copy of all would take as much memory again."""
    digest = sha256()
    for top in range(0, image.height, ROWS_AT_ONCE):
        digest.update(image.crop((0, top, image.width, min(top + ROWS_AT_ONCE, image.height))).tobytes())
    return digest.digest()


def _png_of_pixels(data: bytes) -> bytes:
    kept = [piece for is_needed, piece in _png_pieces(data) if is_needed]
    length = sum(map(len, kept)) + len(PNG_SIGNATURE)
    return data if length == len(data) else PNG_SIGNATURE + b"".join(kept)


def _png_pieces(data: bytes) -> Iterator[tuple[bool, memoryview]]:
    """Each chunk, and whether the picture needs it; what follows the last one is not there."""
    view, at = memoryview(data), len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        is_critical = not kind[0] & 0x20
        is_whole = end <= len(data) and zlib.crc32(view[at + 4 : end - 4]) == struct.unpack_from(">I", data, end - 4)[0]
        yield is_critical or (kind in _SEEN_CHUNKS and is_whole), view[at:end]
        if kind == b"IEND":
            return
        at = end


def _gif_of_pixels(data: bytes) -> bytes:
    """Without frames before the first that has pixels."""
    at = 13 + _colours(data[10])
    while data[at] == _GIF_EXTENSION or _is_empty_frame(data, at):
        begin = at
        at = _end_of_blocks(data, at + 2 if data[at] == _GIF_EXTENSION else at + 11 + _colours(data[at + 9]))
        if data[begin] == _GIF_IMAGE:
            data, at = data[:begin] + data[at:], begin
    return data


def _is_empty_frame(data: bytes, at: int) -> bool:
    return data[at] == _GIF_IMAGE and 0 in struct.unpack_from("<HH", data, at + 5)


def _colours(flags: int) -> int:
    """Bytes of the table that the flags tell of."""
    return 6 << (flags & 7) if flags & 0x80 else 0


def _end_of_blocks(data: bytes, at: int) -> int:
    while size := data[at]:
        at += 1 + size
    return at + 1
