"""The frames of an animation, for those who ask for a video. Each is made from those before it, so that all up to the
last that is shown are decoded: their pixels together are bounded as those of a picture are."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from app.decoding.look import MOST_FRAMES, gif_frames
from app.decoding.protocol import Job
from app.errors import BadImageError
from app.images import check_size, every_frame
from models.framing import Frame, Framing, framed

BYTES_PER_PIXEL = 28  # seven bitmaps at once: canvases or the frame before, what it is put onto, what comes of it


@dataclass(frozen=True, slots=True)
class Animation:
    size: tuple[int, int]  # pixels that all frames together cover
    shown: tuple[int, ...]  # which frames are, ascending

    @property
    def num_decoded(self) -> int:
        return self.shown[-1] + 1

    def num_bytes(self, job: Job) -> int:
        """Peak bytes of its bitmaps."""
        return BYTES_PER_PIXEL * self.size[0] * self.size[1] + job.most_bytes


def animation_of(image: Image.Image, data: bytes, job: Job) -> Animation | None:
    """`image`: just opened, from `data`. None: it is none, or is not asked for as one. Raises BadImageError."""
    if job.most_frames == 1:
        return None
    match image.format:
        case "GIF":
            frames = gif_frames(data)
            size = max((image.width, *(x for x, _ in frames))), max((image.height, *(y for _, y in frames)))
            number = len(frames)
        case "WEBP":
            size, number = image.size, getattr(image, "n_frames", 1)
        case _:
            return None
    if number <= 1:
        return None
    if not job.most_frames:
        raise BadImageError("The image is animated, and so a video by itself: it cannot be one frame of several.")
    animation = Animation(size, uniformly(number, job.most_frames))
    _check(animation, number, job)
    return animation


def uniformly(number: int, most: int) -> tuple[int, ...]:
    """Which of so many, at equal distances from the first on; all of them if they are few."""
    few = min(number, most)
    return tuple(place * number // few for place in range(few))


def decode_frames(image: Image.Image, animation: Animation, framing: Framing) -> tuple[Frame, ...]:
    """Raises BadImageError."""
    return tuple(framed(one, framing) for one in every_frame(image, animation.shown))


def _check(animation: Animation, number: int, job: Job) -> None:
    if number > MOST_FRAMES:
        raise BadImageError(f"The image has more than {MOST_FRAMES} frames.")
    width, height = animation.size
    check_size(animation.size, job.max_pixels, job.max_side)
    if width * height * animation.num_decoded > job.max_pixels:
        raise BadImageError(
            f"The image has {number} frames of {width} x {height} pixels, {animation.num_decoded} of which must be "
            f"decoded; at most {job.max_pixels} pixels are allowed in all of them."
        )
