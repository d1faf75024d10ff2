"""One picture in a decoder: looked at and opened, then decoded and shrunk."""

from __future__ import annotations

import time
from dataclasses import dataclass

from PIL import Image

from app.decoding.animation import Animation, animation_of, decode_frames
from app.decoding.drawing import cut_out, draw, most_bytes, room_below
from app.decoding.drawings import Masks, Segments, maps_of
from app.decoding.look import look
from app.decoding.mending import ENDINGS, JPEG_END, mended, pixel_digest
from app.decoding.protocol import Decoded, Job
from app.errors import BadImageError
from app.images import BYTES_PER_RGB_PIXEL, OWN_SIZE, bitmap_bytes, decode_image, has_run_lengths, open_image
from models.framing import Fit, framed

# Nanoseconds of a pixel, measured at 12 megapixels: to tell cheap from dear, the order of magnitude is enough.
BASELINE_JPEG, SCAN, RUN_LENGTHS, OTHERS, RESIZE, PAD, DRAW, MASK, SEGMENT = (
    3.0, 2.0, 200.0, 10.0, 5.0, 15.0, 110.0, 30.0, 15.0,
)  # fmt: skip
OF_FORMAT = {"PNG": 25.0, "WEBP": 20.0, "AVIF": 15.0, "TIFF": 20.0}


@dataclass(frozen=True, slots=True)
class Opened:
    image: Image.Image | None  # None: masks need none
    animation: Animation | None  # its frames are decoded; None: it alone
    num_bytes: int  # that decoding will hold
    answer_bytes: int  # that what is drawn may have; 0: nothing is
    seconds: float  # of a CPU, that it may take
    began: float  # monotonic seconds


def open_picture(job: Job) -> Opened:
    """What the bytes and the header tell. Raises BadImageError, UnsupportedMediaError."""
    began = time.monotonic()
    if isinstance(masks := job.drawing, Masks):
        num_pixels, answer_bytes = masks.width * masks.height, most_bytes(masks, (masks.width, masks.height))
        seconds = MASK * num_pixels * len(maps_of(masks)) * 1e-9
        return Opened(None, None, 2 * num_pixels + 2 * answer_bytes, answer_bytes, seconds, began)
    num_scans, data = look(job.data), mended(job.data)
    image = _open(data, job)
    animation = animation_of(image, data, job)
    num_bytes, nanoseconds, answer_bytes = bitmap_bytes(image), _nanoseconds(image, num_scans), 0
    if resized := job.framing.num_pixels(*image.size):
        num_bytes = max(num_bytes, BYTES_PER_RGB_PIXEL * (image.width * image.height + resized))
    if job.framing.fit is Fit.PAD:
        nanoseconds += PAD * image.width * image.height
    if animation is not None:
        num_bytes, nanoseconds = animation.num_bytes(job), nanoseconds * animation.num_decoded
    if job.drawing is not None:
        num_pixels = image.width * image.height
        answer_bytes = max(most_bytes(job.drawing, size) for size in (image.size, image.size[::-1]))  # turned or not
        num_bytes = max(num_bytes, BYTES_PER_RGB_PIXEL * num_pixels) + answer_bytes  # it is here, too
        nanoseconds += DRAW * num_pixels
        if isinstance(segments := job.drawing, Segments):
            num_below = max(room_below(segments, size) * size[0] for size in (image.size, image.size[::-1]))
            # A second picture, with the legend; and the maps, as wide as it is.
            num_bytes += BYTES_PER_RGB_PIXEL * (num_pixels + num_below) + len(segments.names) * num_pixels
            nanoseconds += SEGMENT * num_pixels * len(segments.names) + DRAW * num_below
    return Opened(image, animation, num_bytes, answer_bytes, nanoseconds * 1e-9, began)


def finish(opened: Opened, job: Job) -> Decoded:
    """Raises BadImageError."""
    if isinstance(masks := job.drawing, Masks):
        return Decoded(cut_out(masks), job.framing, (masks.width, masks.height), opened.began, opened.began)
    assert opened.image is not None
    if opened.animation is not None:
        frames = decode_frames(opened.image, opened.animation, job.framing)
        pixels = b"".join(one.tobytes() for one in frames)
        return Decoded(pixels, job.framing, opened.animation.size, opened.began, time.monotonic())
    try:
        image = decode_image(opened.image)
    except BadImageError:
        if opened.image.format != "JPEG" or job.data.endswith(JPEG_END):
            raise
        image = _without_end(job)
    decoded = time.monotonic()
    size = image.info[OWN_SIZE]
    data = framed(image, job.framing, size).tobytes() if job.drawing is None else draw(image, job.drawing)
    return Decoded(data, job.framing, size, opened.began, decoded)


def _open(data: bytes, job: Job) -> Image.Image:
    return open_image(data, max_pixels=job.max_pixels, max_side=job.max_side, enough_side=job.enough_side)


def _without_end(job: Job) -> Image.Image:
    """A JPEG whose last bytes are missing. All rows are there if it is the same picture whatever follows.

    Raises BadImageError."""
    data = job.data.rstrip(b"\xff")  # the first half of the end may be there
    first = pixel_digest(decode_image(_open(data + ENDINGS[0], job)))
    image = decode_image(_open(data + ENDINGS[1], job))
    if first != pixel_digest(image):
        raise BadImageError("The image is cut off: rows are missing.")
    return image


def _nanoseconds(image: Image.Image, num_scans: int) -> float:
    """Of one frame."""
    if image.format in ("JPEG", "MPO"):
        of_pixel = BASELINE_JPEG + (SCAN * num_scans if num_scans > 1 else 0)
    elif has_run_lengths(image):
        of_pixel = RUN_LENGTHS
    else:
        of_pixel = OF_FORMAT.get(image.format or "", OTHERS)
    return image.width * image.height * (of_pixel + RESIZE)
