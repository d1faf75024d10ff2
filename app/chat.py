"""OpenAI's chat and embeddings over /caption, /vqa and /embed, whose tasks make the answers: the same words, the same
numbers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from app import tasks
from app.errors import InvalidInputError
from app.http.stream import EventStream
from app.inference import Inference
from app.wire.forms import Form
from app.wire.openai.answers import EmbeddingsAnswer
from app.wire.openai.chat import Asked, ChatFields, read_chat, read_responses
from app.wire.openai.embeddings import EmbeddingsAsked, read_embeddings
from app.wire.openai.replies import Choice, Chunks, Reply, completion, response
from models.base import Task


async def complete(request: Request) -> Response:
    inference = Inference(request)
    asked = await inference.read_json(read_chat)
    if asked.fields.stream:
        return EventStream(_events(inference, asked))
    return await _at_once(inference, asked, completion)


async def respond(request: Request) -> Response:
    inference = Inference(request)
    return await _at_once(inference, await inference.read_json(read_responses), response)


async def embed(request: Request) -> Response:
    inference = Inference(request)
    answer = await _embeddings(inference, await inference.read_json(read_embeddings))
    return Response(await inference.write(answer), media_type="application/json")


async def _at_once(inference: Inference, asked: Asked, shape: Callable[[Reply, ChatFields], object]) -> Response:
    answer: dict[str, object] = shape(await _reply(inference, asked), asked.fields)  # type: ignore[assignment]
    return Response(await inference.write(answer), media_type="application/json")


async def _reply(inference: Inference, asked: Asked) -> Reply:
    name, task = _named(asked.fields.model, inference.models)
    task = task or asked.conversation.task
    inference.count_as(task)
    _, checkpoint = inference.served(task, name)
    history_used = None
    if task is Task.CAPTION:
        await tasks.caption(inference, Form((asked.image,), asked.caption_fields(name), asked.num_chars))
        choices = _generated(inference)
    else:
        own = checkpoint.heads.capabilities
        fields = asked.question_fields(name, with_history=own.history, is_chosen=bool(own.answers))
        [answer] = (await tasks.vqa(inference, Form((asked.image,), fields, asked.num_chars)))["answers"]
        ranked, history_used = answer.get("candidates"), answer.get("history_used")
        best = Choice(answer["answer"], answer["confidence"], candidates=ranked)
        choices = _generated(inference) if ranked is None else [best]
    return Reply(
        id=inference.request_id,
        task="caption" if task is Task.CAPTION else "vqa",
        model=asked.fields.model or inference.model,
        choices=choices,
        num_prompt_tokens=inference.num_prompt_tokens,
        num_tokens=sum(sequence.num_tokens for one in inference.generated for sequence in one.sequences),
        history_used=history_used,
    )


def _generated(inference: Inference) -> list[Choice]:
    [generated] = inference.generated
    return [Choice(one.text, one.confidence, one.is_cut) for one in generated.sequences]


def _named(model: str | None, served: Sequence[str]) -> tuple[str | None, Task | None]:
    """A model as /v1/models lists it: its name, and the task that may stand behind it."""
    name, _, task = (model or "").rpartition(":")
    if model not in served and name in served and task in (Task.CAPTION, Task.VQA):
        return name, Task(task)
    return model, None


async def _events(inference: Inference, asked: Asked) -> AsyncGenerator[bytes, None]:
    """Text as it is generated; of beams, which compete, all of it at the end. Whoever stops listening ends it: then
    its row leaves the generation."""
    told: asyncio.Queue[Sequence[str] | None] = asyncio.Queue()
    inference.listen(told.put_nowait)
    chunks = Chunks(inference.request_id, asked.fields)
    reply = asyncio.create_task(_reply(inference, asked))
    reply.add_done_callback(lambda _: told.put_nowait(None))
    try:
        while (texts := await told.get()) is not None:
            for chunk in chunks.grown(asked.fields.model or inference.model, texts):
                yield await inference.write(chunk)
        for chunk in chunks.last(await reply):
            yield await inference.write(chunk)
    finally:
        reply.cancel()
        await asyncio.gather(reply, return_exceptions=True)  # an exception that nobody takes would be logged


async def _embeddings(inference: Inference, asked: EmbeddingsAsked) -> EmbeddingsAnswer:
    form, fields = asked.form, asked.form.fields
    model, checkpoint = inference.served(Task.EMBED, fields.model)
    own = checkpoint.heads.capabilities
    if asked.dimensions not in (None, own.dimensions):
        raise InvalidInputError(f"dimensions: the model {model.name} has {own.dimensions}")
    if form.images and own.pooling and fields.pooling is None:
        raise InvalidInputError(
            f"pooling: the model {model.name} has several vectors for an image: ask for `mean`, or for all at /embed"
        )
    answer = await tasks.embed(inference, form)
    tokens = inference.num_prompt_tokens
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": one["embedding"]}  # type: ignore[typeddict-item]
            for index, one in enumerate([*answer["images"], *answer["texts"]])
        ],
        "model": fields.model or model.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
