"""An answer in OpenAI's shapes: at once, or as the chunks of a stream."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from app.errors import BatchFailedError
from app.wire.answers import RankedCandidate
from app.wire.openai.answers import ChatChoice, Chunk, ChunkChoice, Completion, Delta, Extras, ResponseAnswer, Usage
from app.wire.openai.chat import ChatFields


@dataclass(frozen=True, slots=True)
class Choice:
    text: str
    confidence: float
    is_cut: bool = False  # by the limit of tokens
    candidates: list[RankedCandidate] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    id: str
    task: Literal["caption", "vqa"]
    model: str  # as the client named it
    choices: list[Choice]
    num_prompt_tokens: int
    num_tokens: int
    history_used: int | None = None

    @property
    def usage(self) -> Usage:
        read, written = self.num_prompt_tokens, self.num_tokens
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    def extras(self, choice: Choice) -> Extras:
        extras: Extras = {"task": self.task, "confidence": choice.confidence}
        if choice.candidates is not None:
            extras["candidates"] = choice.candidates
        if self.history_used is not None:
            extras["history_used"] = self.history_used
        return extras


class Stops:
    """Where the client wants an answer to end."""

    def __init__(self, stops: Sequence[str] | None) -> None:
        self._stops = [stop for stop in stops or () if stop]

    def cut(self, text: str) -> str:
        """Before the first of them."""
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        return text[: min(places)] if places else text

    def shown(self, text: str) -> str:
        """Of a text that goes on: what comes before a stop, or before what may become one."""
        cut = self.cut(text)
        if len(cut) < len(text):
            return cut
        begun = (size for stop in self._stops for size in range(1, len(stop)) if text.endswith(stop[:size]))
        return text[: len(text) - max(begun, default=0)]

    def reason(self, choice: Choice) -> Literal["stop", "length"]:
        return "length" if choice.is_cut and self.cut(choice.text) == choice.text else "stop"


def completion(reply: Reply, fields: ChatFields) -> Completion:
    stops = Stops(fields.stop)
    choices: list[ChatChoice] = [
        {
            "index": index,
            "message": {"role": "assistant", "content": stops.cut(choice.text), "refusal": None},
            "logprobs": None,
            "finish_reason": stops.reason(choice),
            "blip": reply.extras(choice),
        }
        for index, choice in enumerate(reply.choices)
    ]
    return {
        "id": f"chatcmpl-{reply.id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": reply.model,
        "choices": choices,
        "usage": reply.usage,
    }


class Chunks:
    """What a stream has sent, and what is next."""

    def __init__(self, request_id: str, fields: ChatFields) -> None:
        self._id = f"chatcmpl-{request_id}"
        self._created = int(time.time())
        self._stops = Stops(fields.stop)
        self._tells_usage = fields.stream_options is not None and fields.stream_options.include_usage
        self._sent: dict[int, str] = {}  # by choice

    def grown(self, model: str, texts: Sequence[str]) -> Iterator[Chunk]:
        """The choices have these texts so far."""
        for index, text in enumerate(texts):
            if (shown := self._stops.shown(text)).startswith(self._sent.get(index, "")):
                yield from self._text(model, index, shown)

    def last(self, reply: Reply) -> Iterator[Chunk]:
        """Raises BatchFailedError if a text does not begin as was told: its batch failed, and the retry went another
        way."""
        for index, choice in enumerate(reply.choices):
            text = self._stops.cut(choice.text)
            if not text.startswith(self._sent.get(index, "")):
                raise BatchFailedError("the model failed on this input")
            yield from self._text(reply.model, index, text)
            end: ChunkChoice = {
                "index": index,
                "delta": {} if index in self._sent else {"role": "assistant", "content": ""},
                "logprobs": None,
                "finish_reason": self._stops.reason(choice),
                "blip": reply.extras(choice),
            }
            yield self._chunk(reply.model, [end])
        if self._tells_usage:
            yield self._chunk(reply.model, [], reply.usage)

    def _text(self, model: str, index: int, text: str) -> Iterator[Chunk]:
        """What has come to it; the first piece says who speaks."""
        piece = text[len(self._sent.get(index, "")) :]
        if piece:
            delta: Delta = {"content": piece} if index in self._sent else {"role": "assistant", "content": piece}
            self._sent[index] = text
            yield self._chunk(model, [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}])

    def _chunk(self, model: str, choices: list[ChunkChoice], usage: Usage | None = None) -> Chunk:
        chunk: Chunk = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": model,
            "choices": choices,
        }
        return {**chunk, "usage": usage} if self._tells_usage else chunk


def response(reply: Reply, fields: ChatFields) -> ResponseAnswer:
    [choice] = reply.choices
    status: Literal["completed", "incomplete"] = "incomplete" if choice.is_cut else "completed"
    return {
        "id": f"resp_{reply.id}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if choice.is_cut else None,
        "instructions": None,
        "max_output_tokens": fields.max_tokens,
        "model": reply.model,
        "output": [
            {
                "type": "message",
                "id": f"msg_{reply.id}",
                "status": status,
                "role": "assistant",
                "content": [{"type": "output_text", "text": choice.text, "annotations": []}],
            }
        ],
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "store": False,
        "temperature": fields.temperature,
        "tool_choice": "none",
        "tools": [],
        "top_p": fields.top_p,
        "usage": {
            "input_tokens": reply.num_prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": reply.num_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": reply.num_prompt_tokens + reply.num_tokens,
        },
        "blip": reply.extras(choice),
    }
