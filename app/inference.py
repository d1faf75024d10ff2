"""Per-request access to the models: who answers, what the body says, and what the heads make of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar, cast

from starlette.requests import Request

from app.engine.batching import Kind
from app.errors import InvalidInputError, UnknownModelError, UnsupportedMediaError
from app.http.exchange import OTHER
from app.oddities import oddity
from app.settings import Settings
from app.sight import SMALL_BODY_BYTES, Sight
from app.wire.accept import quality
from app.wire.answers import json_pieces
from app.wire.forms import Form, read_form
from app.wire.schemas import VIDEO_FRAMES, Fields
from models.base import Checkpoint, InputError, Item, ModelRunner, Op, ServedModel, Task, Tell, lacking
from models.inputs import Input, QuestionInput, RankInput, StatesInput, TextInput
from models.outputs import Generated, Localized, Output, Scores

SMALL_TEXT_CHARS, SMALL_INPUTS = 1000, 64  # tokenised: fields make many texts of few
Work = dict[Kind, int]  # how many items of each kind are to run
F = TypeVar("F", bound=Fields)
T = TypeVar("T")
A = TypeVar("A", bound="Asked")


class Asked(Protocol):
    """What a body says."""

    @property
    def num_chars(self) -> int:
        """Of all texts, approximately."""


class Inference(Sight):
    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._few_words = False
        self._tell: Tell | None = None
        self.texts = self._service.texts  # embeddings that are kept
        self.models = tuple(self._service.models)
        self.request_id = self._exchange.request_id
        self.num_prompt_tokens = 0  # of all that was prepared
        self.generated: list[Generated] = []  # by the last `generate`

    def served(self, task: Task, name: str | None) -> tuple[ServedModel, Checkpoint]:
        """The model of this name, or the profile's first that has the task. Raises UnknownModelError,
        InvalidInputError."""
        models = self._service.models
        if name is None:
            if (name := self._service.default_models.get(task)) is None:
                raise InvalidInputError(f"model: {lacking(models.values(), task)}")
        elif name not in models:
            self._exchange.model = OTHER
            raise UnknownModelError(f"No such model. Served: {', '.join(models)}.")
        if (checkpoint := models[name].checkpoints.get(task)) is None:
            raise InvalidInputError(f"model: {lacking([models[name]], task)}")
        self._exchange.model = name
        return models[name], checkpoint

    @property
    def model(self) -> str:
        """Who answers, once `served` was asked."""
        return self._exchange.model

    def count_as(self, task: Task) -> None:
        """In metrics and logs, where the endpoint has several tasks."""
        self._exchange.task = task

    def listen(self, told: Callable[[Sequence[str]], None]) -> None:
        """From now on `told` is called, on the event loop, with what a single item has generated so far."""
        loop = asyncio.get_running_loop()

        def tell(texts: Sequence[str]) -> None:
            with suppress(RuntimeError):  # the event loop has ended meanwhile
                loop.call_soon_threadsafe(told, texts)

        self._tell = tell

    def admit(
        self, checkpoint: Checkpoint, num_images: int, op: Op, items: Mapping[Any, int], *, video: bool = False
    ) -> None:
        """The request's work is known: see `work_of`. Raises QueueFullError."""
        self.admit_work(work_of(checkpoint, num_images, op, items, video=video))

    def admit_work(self, work: Work) -> None:
        """As `admit`, of several checkpoints."""
        self._admission.admit_work(self._exchange, work)

    def _content_type(self) -> str:
        headers = self._exchange.headers
        codings = headers.get(b"content-encoding", "").lower().split(",")
        if any(coding.strip() not in ("", "identity") for coding in codings):
            raise UnsupportedMediaError("A compressed body is not supported.")
        return headers.get(b"content-type", "")

    async def read_json(self, read: Callable[[bytes, Settings], A]) -> A:
        """A body that is always JSON. Raises what `read` does."""
        if self._content_type().partition(";")[0].strip().lower() != "application/json":
            raise UnsupportedMediaError("The body must be application/json.")
        body = self._exchange.body
        return await self._read(partial(read, body, self._service.settings))

    async def read(self, fields: type[F]) -> Form[F]:
        """The request's form. Raises what `read_form` does."""
        content_type, body, query = self._content_type(), self._exchange.body, self._exchange.scope["query_string"]
        read = partial(read_form, content_type, query, body, fields, self._service.settings)
        return await self._read(read)

    async def _read(self, read: Callable[[], A]) -> A:
        """On a CPU thread if the body is large. Raises what `read` does."""
        asked = await self.on_cpu(read, small=len(self._exchange.body) <= SMALL_BODY_BYTES)
        self._few_words = asked.num_chars <= SMALL_TEXT_CHARS
        return asked

    async def write(self, answer: Mapping[str, Any] | list[Any]) -> bytes:
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
        small = self._few_words and sum(map(len, groups)) <= SMALL_INPUTS
        items = await self.on_cpu(lambda: [_prepare(runner, group) for group in groups], small=small)
        self.num_prompt_tokens += sum(item.num_prompt_tokens for group in items for item in group)
        return items

    async def generate(self, runner: ModelRunner, items: Sequence[Item], prompts: Sequence[str]) -> list[Generated]:
        """`prompts`: the question of each item, or what its caption goes on from."""
        if self._tell is not None and len(items) == 1:
            items = [replace(items[0], tell=self._tell)]
        self.generated = generated = cast("list[Generated]", await self._run(runner, items))
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

    async def localize(self, runner: ModelRunner, item: Item) -> Localized:
        [localized] = await self._run(runner, [item])
        return cast("Localized", localized)

    def prefers(self, media: str, other: str) -> bool:
        """Whether the client would rather have the first type of answer; either will do: it would not."""
        accept = self._exchange.headers.get(b"accept", "")
        return quality(accept, media) > quality(accept, other)

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
                    await asyncio.sleep(0)  # until it has a place: a thousand at once would hold the loop
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _run_one(self, runner: ModelRunner, item: Item) -> Output:
        async with self._window:
            output = await self._submit(runner, item, deadline=self._exchange.deadline)
        self._exchange.lease.finish(Kind.of_item(runner.unit, item), 1)
        return output


def work_of(checkpoint: Checkpoint, num_images: int, op: Op, items: Mapping[Any, int], *, video: bool = False) -> Work:
    """Images to encode, or with `video` videos, and what the heads do then: so many items of each `asked_of`."""
    work = {Kind(checkpoint.tower.unit, Op.ENCODE): num_images * (VIDEO_FRAMES if video else 1)}
    see_video = video or checkpoint.heads.capabilities.num_images > 1
    for asked, number in items.items():
        work[Kind.of(checkpoint.heads.unit, op, asked, video=see_video and asked is not TextInput)] = number
    return work


def asked_of(request: Input) -> Any:
    """What items are told apart by where it is asked how long they take; it has a hash."""
    return (StatesInput, request.space) if isinstance(request, StatesInput) else type(request)


def _prepare(runner: ModelRunner, group: Sequence[Input]) -> list[Item]:
    items: list[Item] = []
    for one in group:
        try:
            items.append(replace(runner.prepare(one), asked=asked_of(one)))
        except InputError as error:
            if len(group) == 1:
                raise
            name = "question" if isinstance(one, QuestionInput | RankInput) else "text"
            raise InputError(f"{name}: {len(items)}: {f'{error}'.removeprefix(f'{name}: ')}") from error
    return items
