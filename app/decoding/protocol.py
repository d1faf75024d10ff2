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

HEAD = Struct("!BI")  # kind, bytes that follow
JOB = Struct("!QQQQB?d")  # image_size, max_pixels, max_side, enough_side or 0, most_frames; dear, CPU seconds; upload
GO = Struct("!?d")  # whether it has become dear, CPU seconds from now on
OPENED = Struct("!Qd")  # bytes that decoding will hold, seconds that it may take
DONE = Struct("!dd")  # when it began and when it was decoded, monotonic seconds. Then the pixels of each frame
ERRORS: tuple[type[ServiceError], ...] = (BadImageError, UnsupportedMediaError)
MOST_TOLD_BYTES = 4096  # of any frame of a decoder without pixels


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
    """An upload to be decoded within limits (see `open_image`), and shrunk to a square of `image_size` pixels.

    `most_frames`: of an animation (GIF, WebP), at equal distances over its length; 1: the first, as of any picture; 0:
    an animation is refused."""

    data: bytes
    image_size: int
    max_pixels: int
    max_side: int
    enough_side: int | None = None
    most_frames: int = 1

    @property
    def most_bytes(self) -> int:
        """Of its pixels."""
        return 3 * self.image_size**2 * max(1, self.most_frames)

    def pack(self, *, is_dear: bool, cpu_seconds: float) -> bytes:
        """The frame, without the upload."""
        sizes = self.image_size, self.max_pixels, self.max_side, self.enough_side or 0, self.most_frames
        head = JOB.pack(*sizes, is_dear, cpu_seconds)
        return HEAD.pack(Kind.JOB, len(head) + len(self.data)) + head


@dataclass(frozen=True, slots=True)
class Decoded:
    frames: tuple[Image.Image, ...]  # RGB, squares; one, unless more were asked for
    began: float  # monotonic seconds, as `decoded`: before the last was resized
    decoded: float

    @property
    def image(self) -> Image.Image:
        """The first frame."""
        return self.frames[0]


Buffer = bytes | memoryview
HoldBytes = Callable[[int], AbstractContextManager[None]]  # entered with the bytes of a decode, while they are held


class ImageDecoder(Protocol):
    """What the service decodes with."""

    async def start(self) -> None: ...

    async def decode(self, job: Job, hold: HoldBytes) -> Decoded:
        """Raises BadImageError, UnsupportedMediaError."""

    def sickness(self) -> str | None:
        """Why nothing can be decoded now; None: it can."""

    async def close(self) -> None: ...


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    return HEAD.pack(kind, len(payload)) + payload
