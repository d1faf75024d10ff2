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

from app.decoding.drawings import Drawing, packed
from app.errors import BadImageError, ServiceError, UnsupportedMediaError
from models.framing import Framing

HEAD = Struct("!BI")  # kind, bytes that follow
# The framing's side, fit, resized, resampling; max_pixels, max_side, enough_side or 0, most_frames; dear, CPU seconds;
# bytes of the drawing or 0. Then it, and the upload
JOB = Struct("!HBHBQQQB?dI")
GO = Struct("!?d")  # whether it has become dear, CPU seconds from now on
OPENED = Struct("!QQd")  # bytes that decoding will hold, most bytes of what is drawn or 0; seconds that it may take
# When it began and when it was decoded, monotonic seconds; its own width and height. Then the pixels of each frame, or
# what was drawn
DONE = Struct("!ddII")
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
class Job:
    """An upload to be decoded within limits (see `open_image`), and shrunk as `framing` says; with `drawing`, drawn at
    its own size instead.

    `most_frames`: of an animation (GIF, WebP), at equal distances over its length; 1: the first, as of any picture; 0:
    an animation is refused."""

    data: bytes
    framing: Framing
    max_pixels: int
    max_side: int
    enough_side: int | None = None
    most_frames: int = 1
    drawing: Drawing | None = None

    @property
    def most_bytes(self) -> int:
        """Of its pixels."""
        return 3 * self.framing.most_pixels * max(1, self.most_frames)

    def pack(self, *, is_dear: bool, cpu_seconds: float) -> bytes:
        """The frame, without the upload."""
        how = self.framing
        sizes = how.side, how.fit, how.resized, how.resampling
        limits = self.max_pixels, self.max_side, self.enough_side or 0, self.most_frames
        drawing = packed(self.drawing)
        head = JOB.pack(*sizes, *limits, is_dear, cpu_seconds, len(drawing)) + drawing
        return HEAD.pack(Kind.JOB, len(head) + len(self.data)) + head

    def check(self, data: Buffer, size: tuple[int, int]) -> None:
        """What it was answered. Raises ValueError if that cannot be its answer."""
        if min(size) < 1:
            raise ValueError("not a size")
        if self.drawing is not None:
            return
        width, height = self.framing.made(*size)
        if not data or len(data) % (3 * width * height):
            raise ValueError("not the pixels of its frames")


@dataclass(frozen=True, slots=True)
class Decoded:
    data: Buffer  # RGB of the frames, one after the other, or what was drawn: a PNG, of masks each on a line in base64
    framing: Framing
    size: tuple[int, int]  # the picture's own, upright
    began: float  # monotonic seconds, as `decoded`: before the last was resized or drawn over
    decoded: float

    @property
    def image(self) -> Image.Image:
        """The first frame."""
        return self.frames[0]

    @property
    def frames(self) -> tuple[Image.Image, ...]:
        """As they were framed; one, unless more were asked for."""
        width, height = self.framing.made(*self.size)
        num_bytes = 3 * width * height
        starts = range(0, len(self.data), num_bytes)
        return tuple(Image.frombytes("RGB", (width, height), self.data[start : start + num_bytes]) for start in starts)


# Entered with the bytes of a decode and of what is drawn, while they are held. Raises BytesFullError: no room for that.
HoldBytes = Callable[[int, int], AbstractContextManager[None]]


class ImageDecoder(Protocol):
    """What the service decodes with."""

    async def start(self) -> None: ...

    async def decode(self, job: Job, hold: HoldBytes) -> Decoded:
        """Raises BadImageError, UnsupportedMediaError, BytesFullError."""

    def sickness(self) -> str | None:
        """Why nothing can be decoded now; None: it can."""

    async def close(self) -> None: ...


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    return HEAD.pack(kind, len(payload)) + payload
