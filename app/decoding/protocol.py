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

import numpy as np

from app.decoding.drawings import Drawing, Masks, maps_of, packed
from app.errors import BadImageError, ServiceError, UnsupportedMediaError
from models.framing import Fit, Frame, Framing, frame_of

HEAD = Struct("!BI")  # kind, bytes that follow
# The framing's side, fit, resized, resampling; max_pixels, max_side, enough_side or 0, most_frames; dear, CPU seconds;
# bytes of the drawing or 0. Then it, and the upload
JOB = Struct("!HBHBQQQB?dI")
GO = Struct("!?d")  # whether it has become dear, CPU seconds from now on
OPENED = Struct("!QQd")  # bytes that decoding will hold, most bytes of what is drawn or 0; seconds that it may take
# When it began and when it was decoded, monotonic seconds; its own width and height. Then the pixels of each frame, or
# what was drawn
DONE = Struct("!ddII")
PNG_HEAD = Struct("!16sII")  # the signature and the beginning of the first chunk; width and height
PNG_BEGIN, PNG_END = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\0\0\0\0IEND\xaeB`\x82"
PNG_BASE64 = b"iVBORw0KGgo"  # how its signature begins
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
        return self.framing.pixel_bytes * self.framing.most_pixels * max(1, self.most_frames)

    def pack(self, *, is_dear: bool, cpu_seconds: float) -> bytes:
        """The frame, without the upload."""
        how = self.framing
        sizes = how.side, how.fit, how.resized, how.resampling
        limits = self.max_pixels, self.max_side, self.enough_side or 0, self.most_frames
        drawing = packed(self.drawing)
        head = JOB.pack(*sizes, *limits, is_dear, cpu_seconds, len(drawing)) + drawing
        return HEAD.pack(Kind.JOB, len(head) + len(self.data)) + head

    def check_opened(self, answer_bytes: int) -> None:
        """How large it was told that what is drawn will be. Raises ValueError if that cannot be."""
        if bool(answer_bytes) != (self.drawing is not None):
            raise ValueError("a drawing that nobody wants, or none")

    def check(self, size: tuple[int, int], data: Buffer) -> None:
        """What it was answered: the picture's own size, and its pixels or what was drawn. Raises ValueError if that
        cannot be its answer."""
        width, height = size
        if not 0 < width * height <= self.max_pixels or max(size) > self.max_side:
            raise ValueError("not the size of a picture that is allowed")
        match self.drawing:
            case None:
                self._check_pixels(size, data)
            case Masks():
                self._check_masks(self.drawing, data)
            case _:
                self._check_png(size, data)

    def _check_pixels(self, size: tuple[int, int], data: Buffer) -> None:
        wide, high = self.framing.made(*size)
        num_frames, rest = divmod(len(data), self.framing.pixel_bytes * wide * high)
        if rest or not 0 < num_frames <= max(1, self.most_frames):
            raise ValueError("not the pixels of frames")
        if self.framing.fit is Fit.PAD:
            levels = np.frombuffer(data, np.float32)
            if not 0 <= levels.min() <= levels.max() <= 1:
                raise ValueError("not the levels of pixels")

    def _check_png(self, size: tuple[int, int], data: Buffer) -> None:
        """By its first chunk and its last: clients are given it as it is. A legend may be below the picture."""
        begin, width, height = PNG_HEAD.unpack_from(data)
        if begin != PNG_BEGIN or bytes(data[-len(PNG_END) :]) != PNG_END or width != size[0] or height < size[1]:
            raise ValueError("not a PNG of the picture")

    def _check_masks(self, masks: Masks, data: Buffer) -> None:
        lines = bytes(data).splitlines()
        if len(lines) != len(maps_of(masks)) or not all(_begins_as_png(line) for line in lines):
            raise ValueError("not the PNG of each mask")


def _begins_as_png(line: bytes) -> bool:
    """In base64, that an answer can hold."""
    return line.startswith(PNG_BASE64) and line.isascii()


@dataclass(frozen=True, slots=True)
class Decoded:
    data: Buffer  # of the frames, one after the other, or what was drawn: a PNG, of masks each on a line in base64
    framing: Framing
    size: tuple[int, int]  # the picture's own, upright
    began: float  # monotonic seconds, as `decoded`: before the last was resized or drawn over
    decoded: float

    @property
    def image(self) -> Frame:
        """The first frame."""
        return self.frames[0]

    @property
    def frames(self) -> tuple[Frame, ...]:
        """As they were framed; one, unless more were asked for."""
        width, height = self.framing.made(*self.size)
        num_bytes = self.framing.pixel_bytes * width * height
        starts = range(0, len(self.data), num_bytes)
        return tuple(frame_of(self.data[start : start + num_bytes], self.framing, self.size) for start in starts)


# Entered with the bytes of a decode and of what is drawn, while they are held. Raises BytesFullError or
# TooManyBytesError: no room for what is drawn.
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
