"""What passes between the service and a decoder's process: frames of a kind, a length, and so many bytes.

The service: JOB, then GO or DROP. The decoder: READY once, then for each job TAKEN, OPENED (unless it is refused), and,
after GO, DONE or REFUSED.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Protocol

from PIL import Image

from app.errors import BadImageError, ServiceError, UnsupportedMediaError
from models.framing import Framing

HEAD = Struct("!BI")  # kind, bytes that follow
# The framing's side, fit, resized, resampling; max_pixels, max_side, enough_side or 0, most_frames; dear, CPU seconds;
# rows and columns of the heat or 0. Then its levels, and the upload
JOB = Struct("!HBHBQQQB?dHH")
GO = Struct("!?d")  # whether it has become dear, CPU seconds from now on
OPENED = Struct("!QQd")  # bytes that decoding will hold, most bytes of a PNG or 0; seconds that it may take
DONE = Struct(
    "!dd"
)  # when it began and when it was decoded, monotonic seconds. Then the pixels of each frame, or the PNG
PNG_HEAD = Struct("!16sII")  # the signature and the beginning of the first chunk; width and height
PNG_BEGIN, PNG_END = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\0\0\0\0IEND\xaeB`\x82"
ERRORS: tuple[type[ServiceError], ...] = (BadImageError, UnsupportedMediaError)
MOST_TOLD_BYTES = 4096  # of any frame of a decoder without pixels


Buffer = bytes | memoryview


class Kind(IntEnum):
    JOB = 1
    GO = 2  # decode it
    DROP = 3  # nobody wants it any more, or not from this decoder
    READY = 4
    TAKEN = 5  # the head of a job has arrived
    OPENED = 6
    DONE = 7
    REFUSED = 8  # one byte, which of ERRORS; then its detail


@dataclass(frozen=True, slots=True)
class Heat:
    """Levels 0 to 255, a byte for each patch of a picture, row by row."""

    rows: int
    columns: int
    levels: bytes


@dataclass(frozen=True, slots=True)
class Job:
    """An upload to be decoded within limits (see `open_image`), and shrunk to a square as `framing` says; with
    `heat`, drawn over at its own size instead.

    `most_frames`: of an animation (GIF, WebP), at equal distances over its length; 1: the first, as of any picture; 0:
    an animation is refused."""

    data: bytes
    framing: Framing
    max_pixels: int
    max_side: int
    enough_side: int | None = None
    most_frames: int = 1
    heat: Heat | None = None

    @property
    def most_bytes(self) -> int:
        """Of its pixels."""
        return 3 * self.framing.side**2 * max(1, self.most_frames)

    def pack(self, *, is_dear: bool, cpu_seconds: float) -> bytes:
        """The frame, without the upload."""
        how = self.framing
        sizes = how.side, how.fit, how.resized, how.resampling
        limits = self.max_pixels, self.max_side, self.enough_side or 0, self.most_frames
        heat = self.heat or Heat(0, 0, b"")
        head = JOB.pack(*sizes, *limits, is_dear, cpu_seconds, heat.rows, heat.columns) + heat.levels
        return HEAD.pack(Kind.JOB, len(head) + len(self.data)) + head

    def check_opened(self, answer_bytes: int) -> None:
        """How large a PNG it was told that it will be. Raises ValueError if that cannot be."""
        if bool(answer_bytes) != (self.heat is not None):
            raise ValueError("a PNG that nobody wants, or none")

    def check(self, data: Buffer) -> None:
        """What it was answered. Raises ValueError if that cannot be its answer."""
        if self.heat is not None:
            self._check_png(data)
        elif not 0 < len(data) <= self.most_bytes or len(data) % (3 * self.framing.side**2):
            raise ValueError("not the pixels of squares")

    def _check_png(self, data: Buffer) -> None:
        """By its first chunk and its last: clients are given it as it is."""
        begin, width, height = PNG_HEAD.unpack_from(data)
        if begin != PNG_BEGIN or bytes(data[-len(PNG_END) :]) != PNG_END:
            raise ValueError("not a PNG")
        if not 0 < width * height <= self.max_pixels or max(width, height) > self.max_side:
            raise ValueError("not the PNG of a picture that is allowed")


@dataclass(frozen=True, slots=True)
class Decoded:
    data: Buffer  # RGB of the squares, one after the other, or the PNG
    image_size: int  # pixels, of a square's side
    began: float  # monotonic seconds, as `decoded`: before the last was resized or drawn over
    decoded: float

    @property
    def image(self) -> Image.Image:
        """The first square."""
        return self.frames[0]

    @property
    def frames(self) -> tuple[Image.Image, ...]:
        """The squares; one, unless more were asked for."""
        side, num_bytes = self.image_size, 3 * self.image_size**2
        starts = range(0, len(self.data), num_bytes)
        return tuple(Image.frombytes("RGB", (side, side), self.data[start : start + num_bytes]) for start in starts)


# Entered with the bytes of a decode and of its PNG, while they are held. Raises BytesFullError or TooManyBytesError: no
# room for the PNG.
HoldBytes = Callable[[int, int], AbstractContextManager[None]]


class ImageDecoder(Protocol):
    """What the service decodes with."""

    async def start(self) -> None: ...

    async def decode(self, job: Job, hold: HoldBytes) -> Decoded:
        """Raises BadImageError, UnsupportedMediaError, and what `hold` does."""

    def sickness(self) -> str | None:
        """Why nothing can be decoded now; None: it can."""

    async def close(self) -> None: ...


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    return HEAD.pack(kind, len(payload)) + payload
