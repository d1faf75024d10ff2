"""A look at the bytes of an upload before Pillow opens it: each of its parts costs Pillow microseconds of Python, or a
copy of all that came before.

Each walk follows the way that Pillow takes through the format, so that it sees the same parts; of its turns, too, there
are few. What is broken is left to Pillow, which says so.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from struct import unpack_from

from app.errors import BadImageError
from app.images import TIFF_LAYOUTS

MOST_PARTS = 1000  # segments, sub-blocks, chunks, boxes, directory entries
MOST_SCANS = 100
MOST_EXIF_SEGMENTS = 100  # Pillow puts them together one by one
MOST_FILLING = 2**16  # bytes between parts
MOST_STRIPS = 2**16
MOST_FRAMES = 1000  # of an animation
LEAST_BLOCK_BYTES = 64  # of a GIF's pixels, on average; encoders make 255
USUAL_CHUNK_BYTES = 1024  # of pixels; libpng makes 8 KiB
PARTS_OF_COMPRESSED = 10  # that a chunk counts for which is inflated, to a megabyte at most
_COMPRESSED = {b"iCCP", b"iTXt", b"zTXt"}
_STRIPS = (273, 279, 324, 325)  # offsets and byte counts of strips and tiles
_MARKER = re.compile(rb"\xff([\x01-\xfe])")
_MARKER_IN_SCAN = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # not those of restarts
_BARE_MARKERS = {0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)}  # without a length, as Pillow reads them
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_END, _SCAN, _APP1, _APP13 = 0xD9, 0xDA, 0xE1, 0xED
# Boxes of boxes: bytes before their first child.
_BOXES = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"iref": 4, b"iinf": 6} | dict.fromkeys(
    (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts", b"udta"), 0
)


def look(data: bytes) -> int:
    """The number of scans: 1 where the format knows none. Raises BadImageError: more parts than any picture needs."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg_scans(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            _check_chunks(_png_chunks(data), (b"IDAT", b"fdAT"), len(data))
        elif data.startswith(b"RIFF"):
            _check_chunks(_riff_chunks(data), (b"ANMF",), len(data))
        elif data.startswith((b"GIF87a", b"GIF89a")):
            _check_gif(data)
        elif data[4:8] == b"ftyp":
            _check_boxes(data)
        elif data[:4] in TIFF_LAYOUTS:
            _check_directory(data)
    except (IndexError, struct.error):  # cut off
        pass
    return 1


class _Count:
    """Of parts, and of what lies between them."""

    def __init__(self, of: str) -> None:
        self._of = of
        self._parts = 0
        self._filling = 0

    def part(self, number: int = 1) -> None:
        self._parts += number
        if self._parts > MOST_PARTS:
            raise BadImageError(f"The image has more than {MOST_PARTS} {self._of}.")

    def filling(self, num_bytes: int) -> None:
        self._filling += num_bytes
        if self._filling > MOST_FILLING:
            raise BadImageError(f"The image has more than {MOST_FILLING} bytes between its {self._of}.")


# --- JPEG ---


def _jpeg_scans(data: bytes) -> int:
    count, at, num_exif = _Count("segments"), 2, 0
    is_progressive, num_components = False, 0
    while marker := _MARKER.search(data, at):
        count.part()
        count.filling(marker.start() - at)
        code, at = marker[1][0], marker.end()
        if code in _BARE_MARKERS:
            continue
        if code < 0xC0:
            return 1
        end = at + max(2, *unpack_from(">H", data, at))
        if code in _FRAMES:
            is_progressive, num_components = code in _PROGRESSIVE, data[at + 7]
        elif code == _APP1 and data.startswith(b"Exif\0\0", at + 2):
            num_exif += 1
        elif code == _APP13:
            count.part(data.count(b"8BIM", at, end))
        elif code == _SCAN:
            is_one = not is_progressive and data[at + 2] >= num_components
            return 1 if is_one else _count_scans(data, end, count)
        if num_exif > MOST_EXIF_SEGMENTS:
            raise BadImageError(f"The image has more than {MOST_EXIF_SEGMENTS} segments of Exif.")
        at = end
    return 1


def _count_scans(data: bytes, at: int, count: _Count) -> int:
    """From the end of the first one's header."""
    num_scans = 1
    while (marker := _MARKER_IN_SCAN.search(data, at)) and marker[1][0] != _END:
        count.part()
        num_scans += marker[1][0] == _SCAN
        if num_scans > MOST_SCANS:
            raise BadImageError(f"The image has more than {MOST_SCANS} scans.")
        at = marker.end()
        if at + 2 <= len(data):
            at += max(2, *unpack_from(">H", data, at))
    return num_scans


# --- PNG, WebP ---


def _png_chunks(data: bytes) -> Iterator[bytes]:
    at, kind = 8, b""
    while at + 8 <= len(data) and kind != b"IEND":
        length, kind = unpack_from(">I4s", data, at)
        yield kind
        at += 12 + length


def _riff_chunks(data: bytes) -> Iterator[bytes]:
    at = 12
    while at + 8 <= len(data):
        kind, length = unpack_from("<4sI", data, at)
        yield kind
        at += 8 + length + length % 2


def _check_chunks(kinds: Iterator[bytes], of_pixels: tuple[bytes, ...], num_bytes: int) -> None:
    count = _Count("chunks")
    num_of_pixels, most = 0, MOST_PARTS + num_bytes // USUAL_CHUNK_BYTES
    for kind in kinds:
        if kind not in of_pixels:
            count.part(PARTS_OF_COMPRESSED if kind in _COMPRESSED else 1)
            continue
        num_of_pixels += 1
        if num_of_pixels > most:
            raise BadImageError(f"The image has more than {most} chunks of pixels.")


# --- GIF ---


def _check_gif(data: bytes) -> None:
    """Up to the first image."""
    _next_gif_image(data, 13 + _colours(data[10]), _Count("sub-blocks"), is_first=True)


def gif_frames(data: bytes) -> list[tuple[int, int]]:
    """Of each frame, how far to the right and down it goes. Raises BadImageError: more than any animation needs."""
    frames: list[tuple[int, int]] = []
    most_blocks = MOST_PARTS + len(data) // LEAST_BLOCK_BYTES
    num_blocks = 0
    try:
        at = 13 + _colours(data[10])
        while True:
            at = _next_gif_image(data, at, _Count("sub-blocks"), is_first=not frames)
            if data[at] == ord(";"):
                break
            x, y, width, height, flags = unpack_from("<4HB", data, at + 1)
            frames.append((x + width, y + height))
            if len(frames) > MOST_FRAMES:
                raise BadImageError(f"The image has more than {MOST_FRAMES} frames.")
            at += 11 + _colours(flags)  # and the byte before the pixels
            while length := data[at]:
                num_blocks += 1
                if num_blocks > most_blocks:
                    raise BadImageError(f"The image has more than {most_blocks} sub-blocks of pixels.")
                at += 1 + length
            at += 1
    except (IndexError, struct.error):  # cut off
        pass
    return frames


def _colours(flags: int) -> int:
    """Bytes of the table that the flags tell of."""
    return 6 << (flags & 7) if flags & 0x80 else 0


def _next_gif_image(data: bytes, at: int, count: _Count, *, is_first: bool) -> int:
    """Where the next image begins, or the end."""
    while (introducer := data[at]) not in b",;":
        at += 1
        if introducer != ord("!"):
            count.filling(1)
            continue
        label, at = data[at], at + 1
        count.part()
        if label != 0xFE:  # whatever follows the first block of others is skipped to the next empty one
            if is_first and label == 0xFF and data.startswith(b"NETSCAPE2.0", at + 1):
                at += 1 + data[at]
            at += 1 + data[at]
        while length := data[at]:
            count.part()
            at += 1 + length
        at += 1
    return at


# --- AVIF ---


def _check_boxes(data: bytes) -> None:
    count = _Count("boxes")
    spans = [(0, len(data))]
    while spans:
        at, end = spans.pop()
        while at + 8 <= end:
            count.part()
            length, kind = unpack_from(">I4s", data, at)
            begin = at + 8
            if length == 1:
                (length,), begin = unpack_from(">Q", data, begin), begin + 8
            following = at + max(8, length) if length else end
            if kind == b"iloc":
                count.part(_num_items(data, begin + 6, is_large=data[begin] >= 2))
            elif kind == b"ipma":
                count.part(_num_items(data, begin + 4, is_large=True))
            elif kind in _BOXES:
                wide_count = 2 if kind == b"iinf" and data[begin] else 0
                spans.append((begin + _BOXES[kind] + wide_count, min(following, end)))
            at = following


def _num_items(data: bytes, at: int, *, is_large: bool) -> int:
    (number,) = unpack_from(">I" if is_large else ">H", data, at)
    return int(number)


# --- TIFF ---


def _check_directory(data: bytes) -> None:
    """The first one, which is the only one that is read."""
    order, count_format, entry_bytes = TIFF_LAYOUTS[data[:4]]
    (at,) = unpack_from(order + ("Q" if count_format == "Q" else "I"), data, 8 if count_format == "Q" else 4)
    (num_entries,) = unpack_from(order + count_format, data, at)
    _Count("tags").part(num_entries)
    at += struct.calcsize(order + count_format)
    for entry in range(at, at + num_entries * entry_bytes, entry_bytes):
        tag, _, number = unpack_from(order + ("HHQ" if count_format == "Q" else "HHI"), data, entry)
        if tag in _STRIPS and number > MOST_STRIPS:
            raise BadImageError(f"The image has more than {MOST_STRIPS} strips or tiles.")
