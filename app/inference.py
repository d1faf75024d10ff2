"""Per-request access to the CPU threads, the feature cache and the engine."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from itertools import islice
from typing import Any, TypeVar, cast

from starlette.requests import Request

from app.decoding.protocol import Job
from app.engine.batching import Kind
from app.engine.features import FeatureKey
from app.errors import BadImageError, FetchError, InvalidInputError, UnknownModelError, UnsupportedMediaError
from app.http.admission import Admission
from app.http.exchange import OTHER, Exchange
from app.oddities import oddity
from app.service import Service
from app.wire.answers import json_pieces
from app.wire.forms import Form, Upload, distinct, place, read_form
from app.wire.schemas import Fields
from models.base import (
    Checkpoint,
    Features,
    Generated,
    ImageInput,
    Input,
    InputError,
    Item,
    ModelRunner,
    Op,
    Output,
    QuestionInput,
    RankInput,
    Scores,
    ServedModel,
    Task,
)

BYTES_PER_PREPARED_PIXEL = 12  # three float32
SMALL_BODY_BYTES = 256 * 1024  # parsed and hashed, or encoded
SMALL_TEXT_CHARS = 1000  # tokenised
F = TypeVar("F", bound=Fields)
T = TypeVar("T")


class Inference:
    def __init__(self, request: Request) -> None:
        self._service: Service = request.app.state.service
        self._exchange: Exchange = request.scope["blip.exchange"]
        self._admission: Admission = request.app.state.admission
        self._window = Window(self._admission.may_add)
        self._few_words = False

    def served(self, task: Task, name: str | None) -> tuple[ServedModel, Checkpoint]:
        """The model of this name, or the profile's first that has the task. Raises UnknownModelError,
        InvalidInputError."""
        models = self._service.models
        if name is None:
            name = self._service.default_models[task]
        elif name not in models:
            self._exchange.model = OTHER
            raise UnknownModelError(f"No such model. Served: {', '.join(models)}.")
        if (checkpoint := models[name].checkpoints.get(task)) is None:
            raise InvalidInputError(f"model: does not have the task {task}")
        self._exchange.model = name
        return models[name], checkpoint

    def admit(self, checkpoint: Checkpoint, num_images: int, op: Op, num_items: int) -> None:
        """The request's work is known: pictures to encode, and items of the heads. Raises QueueFullError."""
        work = {Kind(checkpoint.tower.unit, Op.ENCODE): num_images, Kind(checkpoint.heads.unit, op): num_items}
        self._admission.admit_work(self._exchange, work)

    async def on_cpu(self, function: Callable[[], T], *, small: bool = False) -> T:
        """On a CPU thread; `small`: here, as to hand it over would take longer."""
        if small:
            return function()
        return await asyncio.get_running_loop().run_in_executor(self._service.cpu, function)

    async def read(self, fields: type[F]) -> Form[F]:
        """The request's form. Raises what `read_form` does."""
        headers, body = self._exchange.headers, self._exchange.body
        codings = headers.get(b"content-encoding", "").lower().split(",")
        if any(coding.strip() not in ("", "identity") for coding in codings):
            raise UnsupportedMediaError("A compressed body is not supported.")
        content_type, query = headers.get(b"content-type", ""), self._exchange.scope["query_string"]
        return await self.form(partial(read_form, content_type, query, body, fields, self._service.settings))

    async def form(self, read: Callable[[], Form[F]]) -> Form[F]:
        """What `read` makes of the body, with the images fetched that it names by URL. Raises what both do."""
        form = await self.on_cpu(read, small=len(self._exchange.body) <= SMALL_BODY_BYTES)
        self._few_words = form.num_chars <= SMALL_TEXT_CHARS
        if links := form.links:
            with self._admission.set_back(self._exchange):
                form = form.with_fetched(await all_of([self._fetch(link) for link in links]))
        return form

    async def _fetch(self, link: Upload) -> Upload:
        """All of one request side by side. Bytes are counted as they come, as those of a body."""
        exchange, began = self._exchange, time.monotonic()
        try:
            with _naming(link):
                data = await self._service.fetcher.fetch(link.url or "", exchange.lease.add_body, exchange.request_id)
        finally:
            exchange.times.record("fetch", began, time.monotonic())
        return await self.on_cpu(partial(link.fetched, data), small=len(data) <= SMALL_BODY_BYTES)

    async def write(self, answer: Mapping[str, Any]) -> bytes:
        """Its JSON. What is large is encoded on a CPU thread, piece by piece, as the encoder holds the interpreter."""
        pieces = json_pieces(answer)
        written: list[bytes] = []
        size = 0
        for piece in pieces:
            written.append(piece)
            if (size := size + len(piece)) > SMALL_BODY_BYTES:
                written += await self.on_cpu(lambda: list(pieces))
        return b"".join(written)

    async def prepare(self, runner: ModelRunner, *groups: Sequence[Input]) -> list[list[Item]]:
        """Tokenise. Raises InputError, which names the one of several that is wrong."""
        return await self.on_cpu(lambda: [_prepare(runner, group) for group in groups], small=self._few_words)

    async def generate(self, runner: ModelRunner, items: Sequence[Item], prompts: Sequence[str]) -> list[Generated]:
        """`prompts`: the question of each item, or what its caption goes on from."""
        generated = cast("list[Generated]", await self._run(runner, items))
        num_tokens = sum(sequence.num_tokens for one in generated for sequence in one.sequences)
        metrics, model = self._service.metrics, self._exchange.model
        metrics.generated_tokens.labels(model).inc(num_tokens)
        for one, prompt in zip(generated, prompts, strict=True):
            kind = oddity(one.sequences[0].text, prompt) or "plain"
            metrics.generated_texts.labels(model, kind).inc()
        return generated

    async def score(self, runner: ModelRunner, *groups: Sequence[Item]) -> list[list[Scores]]:
        """All groups side by side."""
        scores = iter(cast("list[Scores]", await self._run(runner, [item for group in groups for item in group])))
        return [list(islice(scores, len(group))) for group in groups]

    async def features(self, checkpoint: Checkpoint, images: Sequence[Upload]) -> list[Features]:
        """Of each image. Equal images are encoded once: in this request, across requests that run now, and in later
        ones. All images that have to be decoded are, one at a time, before the first of them is submitted.

        Raises BadImageError, UnsupportedMediaError.
        """
        tower = checkpoint.tower
        decoding = _Decoding()

        async def encode(image: Upload) -> Features:
            async with decoding.turn():
                item = await self._pixels(checkpoint, image.data)
            await decoding.all_done.wait()
            # Without a deadline: others may wait for the same image. When nobody does any more, it is cancelled.
            async with self._window:
                return cast("Features", await self._submit(tower, item, deadline=None))

        async def get(image: Upload) -> Features:
            key = FeatureKey(tower.unit, checkpoint.preprocessing, image.digest)
            with _naming(image):  # here: other requests that wait for the same image have it in another place
                return await self._service.cache.get(key, partial(encode, image))

        firsts = distinct(images)
        try:
            features = dict(zip(firsts, await all_of([get(image) for image in firsts.values()]), strict=True))
        finally:
            decoding.all_done.set()
        self._exchange.lease.finish(Kind(tower.unit, Op.ENCODE), len(firsts))
        return [features[image.digest] for image in images]

    async def _pixels(self, checkpoint: Checkpoint, data: bytes) -> Item:
        """Decoded and shrunk by a decoder, normalised on a CPU thread. Raises BadImageError, UnsupportedMediaError."""
        settings, size, lease = self._service.settings, checkpoint.preprocessing.image_size, self._exchange.lease
        enough_side = size if settings.fast_decode else None
        job = Job(data, size, settings.max_pixels, settings.max_side, enough_side)
        decoded = await self._service.decoder.decode(job, lease.pixels)
        image = ImageInput(decoded.image, checkpoint.preprocessing)
        item = await self.on_cpu(partial(checkpoint.tower.prepare, image))
        lease.add_pixels(BYTES_PER_PREPARED_PIXEL * size**2)
        self._exchange.times.record("decode", decoded.began, decoded.decoded)
        self._exchange.times.record("preprocess", decoded.decoded, time.monotonic())
        return item

    async def _run(self, runner: ModelRunner, items: Sequence[Item]) -> list[Output]:
        """All items, as many at a time as the window lets into the queue."""
        if len(items) == 1:  # the usual request, which need not pay for a group
            return [await self._run_one(runner, items[0])]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = []
                for item in items:
                    await self._window.room()
                    tasks.append(group.create_task(self._run_one(runner, item)))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _run_one(self, runner: ModelRunner, item: Item) -> Output:
        async with self._window:
            output = await self._submit(runner, item, deadline=self._exchange.deadline)
        self._exchange.lease.finish(Kind(runner.unit, item.op), 1)
        return output

    async def _submit(self, runner: ModelRunner, item: Item, deadline: float | None) -> Output:
        self._exchange.lease.submit(Kind(runner.unit, item.op))
        engine, exchange = self._service.engine, self._exchange
        return await engine.submit(runner, item, deadline=deadline, times=exchange.times, owner=exchange)


class Window:
    """How many items one request has in the queue or on the device: as many as `may_add`, told that number, allows."""

    def __init__(self, may_add: Callable[[int], bool]) -> None:
        self._may_add = may_add
        self._num_own = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def room(self) -> None:
        """Until one more may be added."""
        while not self._may_add(self._num_own):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    async def __aenter__(self) -> None:
        await self.room()
        self._num_own += 1
        self._wake()  # as there may be room for more than one

    async def __aexit__(self, *_: object) -> None:
        self._num_own -= 1
        self._wake()

    def _wake(self) -> None:
        if self._waiters and not (waiter := self._waiters.popleft()).done():
            waiter.set_result(None)


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


def _prepare(runner: ModelRunner, group: Sequence[Input]) -> list[Item]:
    items: list[Item] = []
    for one in group:
        try:
            items.append(runner.prepare(one))
        except InputError as error:
            if len(group) == 1:
                raise
            name = "question" if isinstance(one, QuestionInput | RankInput) else "text"
            raise InputError(f"{name}: {len(items)}: {f'{error}'.removeprefix(f'{name}: ')}") from error
    return items


@contextmanager
def _naming(image: Upload) -> Iterator[None]:
    """Of several images, an error names the one that is wrong; and one by URL as JSON's."""
    try:
        yield
    except (BadImageError, FetchError, UnsupportedMediaError) as error:
        if image.index is None and image.url is None:
            raise
        raise type(error)(f"{place(image.index)}: {error.detail}") from error


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
