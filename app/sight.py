"""Per-request access to pictures: fetched, decoded, encoded once and kept; and drawn over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar, cast

from starlette.requests import Request

from app.decoding.animation import uniformly
from app.decoding.drawings import Drawing, Masks
from app.decoding.protocol import Buffer, Decoded, Job
from app.engine.batching import Kind
from app.engine.features import FeatureKey
from app.engine.window import Window
from app.errors import BadImageError, FetchError, InvalidInputError, UnsupportedMediaError
from app.http.admission import Admission
from app.http.exchange import Exchange
from app.service import Service
from app.wire.forms import Upload, distinct
from app.wire.schemas import VIDEO_FRAMES
from models.base import Checkpoint, Item, ModelRunner, Op
from models.framing import Framing
from models.inputs import ImageInput
from models.outputs import Features, Output, Video

BYTES_PER_PREPARED_PIXEL = 12  # three float32
SMALL_BODY_BYTES = 256 * 1024  # parsed and hashed, or encoded
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What is kept of an image."""

    features: Features
    size: tuple[int, int]  # its own, upright, in pixels

    @property
    def nbytes(self) -> int:
        return self.features.nbytes


class Sight:
    """What a request sees, and the engine that it sees with."""

    def __init__(self, request: Request) -> None:
        self._service: Service = request.app.state.service
        self._exchange: Exchange = request.scope["blip.exchange"]
        self._admission: Admission = request.app.state.admission
        self._window = Window(self._admission.may_add)
        self._fetched: dict[str, Upload] = {}  # by URL

    async def on_cpu(self, function: Callable[[], T], *, small: bool = False) -> T:
        """On a CPU thread; `small`: here, as to hand it over would take longer."""
        if small:
            return function()
        return await asyncio.get_running_loop().run_in_executor(self._service.cpu, function)

    async def fetch(self, images: Sequence[Upload]) -> list[Upload]:
        """With what the URLs among them lead to: side by side, each once in a request. `features` and `video` ask for
        their own. Raises what `fetch` of app.urls does, and QueueFullError."""
        missing = [one for one in images if one.url is not None and one.url not in self._fetched]
        links = {one.url or "": one for one in reversed(missing)}  # the first of equal ones
        if links:
            with self._admission.set_back(self._exchange):
                self._fetched |= zip(links, await all_of([self._fetch(one) for one in links.values()]), strict=True)
        return [one if one.url is None else replace(self._fetched[one.url], place=one.place) for one in images]

    async def _fetch(self, link: Upload) -> Upload:
        """Bytes are counted as they come, as those of a body."""
        exchange, began = self._exchange, time.monotonic()
        try:
            with _naming(link):
                data = await self._service.fetcher.fetch(link.url or "", exchange.lease, exchange.request_id)
        finally:
            exchange.times.record("fetch", began, time.monotonic())
        return await self.on_cpu(partial(link.fetched, data), small=len(data) <= SMALL_BODY_BYTES)

    async def features(self, checkpoint: Checkpoint, images: Sequence[Upload]) -> list[Features]:
        """Of each image, which is fetched if it is a URL: all that can be refused without it has been. Equal images are
        encoded once: in this request, across requests that run now, and in later ones. All images that have to be
        decoded are, one at a time, before the first of them is submitted.

        Raises BadImageError, UnsupportedMediaError, and what `fetch` does.
        """
        return [one.features for one in await self.seen(checkpoint, images)]

    async def seen(self, checkpoint: Checkpoint, images: Sequence[Upload]) -> list[Seen]:
        """As `features`, with the size of each image."""
        return await self._seen(checkpoint, images, most_frames=1)

    async def video(self, checkpoint: Checkpoint, images: Sequence[Upload]) -> Video:
        """The images as one video of VIDEO_FRAMES at most: the frames of an animation that is alone, else the images
        themselves; of more, some at equal distances. (The authors' step between frames is rounded down, and to 0 where
        there are few: here neither the end of a video is lost, nor is its first frame all of it.)

        Raises BadImageError, UnsupportedMediaError, and what `fetch` does."""
        if len(images) == 1:
            [video] = await self._seen(checkpoint, images, most_frames=VIDEO_FRAMES)
            return cast("Video", video.features)
        shown = [images[place] for place in uniformly(len(images), VIDEO_FRAMES)]
        return Video(tuple(one.features for one in await self._seen(checkpoint, shown, most_frames=0)))

    async def _seen(self, checkpoint: Checkpoint, images: Sequence[Upload], most_frames: int) -> list[Seen]:
        """As `seen`; `most_frames` as in `Job`: if it is more than one, each is a `Video`."""
        tower = checkpoint.tower
        decoding = _Decoding()

        async def encode(image: Upload) -> Seen:
            async with decoding.turn():
                items, size = await self._pixels(checkpoint, image.data, most_frames)
            await decoding.all_done.wait()
            frames = tuple(await all_of([encode_frame(item) for item in items]))
            return Seen(Video(frames) if most_frames > 1 else frames[0], size)

        async def encode_frame(item: Item) -> Features:
            # Without a deadline: others may wait for the same image. When nobody does any more, it is cancelled.
            async with self._window:
                return cast("Features", await self._submit(tower, item, deadline=None))

        async def get(image: Upload) -> Seen:
            key = FeatureKey(tower.unit, checkpoint.preprocessing, image.digest, most_frames)
            with _naming(image):  # here: other requests that wait for the same image have it in another place
                return cast("Seen", await self._service.cache.get(key, partial(encode, image)))

        num_distinct = len(distinct(images))  # as far as was known when they were taken on
        images = await self.fetch(images)
        firsts = distinct(images)
        try:
            seen = dict(zip(firsts, await all_of([get(image) for image in firsts.values()]), strict=True))
        finally:
            decoding.all_done.set()
        # A video is taken on as VIDEO_FRAMES: it may have fewer, and equal ones are encoded once.
        number = num_distinct * most_frames if most_frames else VIDEO_FRAMES
        self._exchange.lease.finish(Kind(tower.unit, Op.ENCODE), number)
        return [seen[image.digest] for image in images]

    async def _pixels(
        self, checkpoint: Checkpoint, data: bytes, most_frames: int
    ) -> tuple[list[Item], tuple[int, int]]:
        """Of each frame: decoded and shrunk by a decoder, normalised on a CPU thread. And the image's own size.

        Raises BadImageError, UnsupportedMediaError."""
        settings, framing, lease = self._service.settings, checkpoint.preprocessing.framing, self._exchange.lease
        enough_side = framing.enough if settings.fast_decode else None
        job = Job(data, framing, settings.max_pixels, settings.max_side, enough_side, most_frames)
        decoded = await self._service.decoder.decode(job, lease.pixels)
        frames = [ImageInput(frame, checkpoint.preprocessing, is_framed=True) for frame in decoded.frames]
        items = await self.on_cpu(lambda: [checkpoint.tower.prepare(frame) for frame in frames])
        lease.add_pixels(BYTES_PER_PREPARED_PIXEL * len(decoded.data) // framing.pixel_bytes)
        self._exchange.times.record("decode", decoded.began, decoded.decoded)
        self._exchange.times.record("preprocess", decoded.decoded, time.monotonic())
        return items, decoded.size

    async def draw(self, image: Upload, drawing: Drawing) -> Buffer:
        """The image at its own size, upright, with the `drawing` over it, as PNG. Decoded once more, in the decoder
        that draws: nobody else holds its pixels. Raises BytesFullError, TooManyBytesError: no room for so large an
        answer."""
        [image] = await self.fetch([image])
        return (await self._drawn(image.data, drawing)).data

    async def cut_out(self, masks: Masks) -> list[str]:
        """Each as PNG in base64: made in a decoder, too. Raises BytesFullError, TooManyBytesError."""
        cut = await self._drawn(b"", masks)
        self.count_bytes(len(cut.data))
        return await self.on_cpu(
            lambda: [str(line, "ascii") for line in bytes(cut.data).splitlines()],
            small=len(cut.data) <= SMALL_BODY_BYTES,
        )

    async def _drawn(self, data: bytes, drawing: Drawing) -> Decoded:
        settings, times = self._service.settings, self._exchange.times
        job = Job(data, Framing(0), settings.max_pixels, settings.max_side, drawing=drawing)
        drawn = await self._service.decoder.decode(job, self._exchange.lease.pixels)
        if data:
            times.record("decode", drawn.began, drawn.decoded)
        times.record("draw", drawn.decoded, time.monotonic())
        return drawn

    def check_pixels(self, num_masks: int, size: tuple[int, int]) -> None:
        """Raises InvalidInputError: masks of one image may have no more pixels than the largest image."""
        (width, height), limit = size, self._service.settings.max_pixels
        if num_masks * width * height > limit:
            raise InvalidInputError(
                f"text: {num_masks} masks of {width} x {height} pixels, at most {limit} pixels are allowed in all of "
                "them: ask for fewer, or send a smaller image"
            )

    def count_bytes(self, num_bytes: int) -> None:
        """Held by this request until its end."""
        self._exchange.lease.add_pixels(num_bytes)

    async def _submit(self, runner: ModelRunner, item: Item, deadline: float | None) -> Output:
        self._exchange.lease.submit(Kind.of_item(runner.unit, item))
        engine, exchange = self._service.engine, self._exchange
        return await engine.submit(runner, item, deadline=deadline, times=exchange.times, owner=exchange)


class _Decoding:
    """The images of one request that have to be decoded: those whose turn began or waits.

    A failed turn leaves `all_done` unset: nothing of the request is submitted before the failure has ended it.
    """

    def __init__(self) -> None:
        self.all_done = asyncio.Event()
        self._lock = asyncio.Lock()
        self._left = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        self._left += 1
        async with self._lock:
            yield
        self._left -= 1
        if not self._left:
            self.all_done.set()


@contextmanager
def _naming(image: Upload) -> Iterator[None]:
    """Of several images, an error names the one that is wrong; and one by URL as JSON's."""
    try:
        yield
    except (BadImageError, FetchError, UnsupportedMediaError) as error:
        if image.place is None and image.url is None:
            raise
        raise type(error)(f"{image.place or 'image'}: {error.detail}") from error


async def all_of(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results, in order. The first failure cancels the others, and is raised as itself."""
    if len(coroutines) == 1:  # the usual request, which need not pay for a group
        return [await coroutines[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
