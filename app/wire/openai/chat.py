"""POST /v1/chat/completions and POST /v1/responses: what is asked, in the words of /caption and /vqa."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from app.errors import InvalidInputError
from app.settings import Settings
from app.wire.forms import Upload, read_image, read_object, upload, validated
from app.wire.open import ModelName, Open, at_most
from app.wire.openai.messages import Conversation, Message, Messages, read_conversation
from app.wire.schemas import MAX_CANDIDATES, CaptionFields, Context, VqaFields, listed

LONGEST = 256  # tokens; clients ask for 4096
MAX_STOPS = 16
Stops = Annotated[list[str], Field(max_length=MAX_STOPS)]  # for /openapi.json
LEAST_TEMPERATURE = 0.01
LEAST_TOP_P = 1e-6
SEEDS = 2**63
EXTRAS = ("num_beams", "min_new_tokens", "length_penalty", "repetition_penalty")


class StreamOptions(Open):
    include_usage: bool = False


class ResponseFormat(Open):
    type: str


class ChatFields(Open):
    """Every other field is let pass, and does nothing."""

    model: ModelName | None = Field(
        None, description="a served model, or such a one with `:caption` or `:vqa` behind it"
    )
    messages: Messages
    max_tokens: int | None = Field(
        None, ge=1, description=f"above {LONGEST}: {LONGEST}; default: as in /caption and /vqa"
    )
    max_completion_tokens: int | None = Field(None, ge=1, description="the same")
    n: int | None = Field(None, ge=1, le=8, description="answers")
    temperature: float | None = Field(None, ge=0, le=100, description="0 or absent: beams; else sampling")
    top_p: float | None = Field(None, ge=0, le=1, description="sampling: probability kept; default 0.9")
    seed: int | None = Field(None, description="sampling: makes it repeatable")
    stop: Annotated[list[str], at_most(MAX_STOPS), listed(str | Stops)] | None = Field(
        None, description="ends an answer"
    )
    stream: bool | None = Field(None, description="as server-sent events; token by token but for beams")
    stream_options: StreamOptions | None = None
    num_beams: int | None = Field(None, ge=1, le=8, description="default: BLIP 3, BLIP-2 5, or n if larger; 1: greedy")
    min_new_tokens: int | None = Field(None, ge=0, le=LONGEST)
    length_penalty: float | None = Field(None, ge=-10, le=10)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    candidates: Annotated[list[str], at_most(MAX_CANDIDATES)] | None = Field(
        None, min_length=2, max_length=MAX_CANDIDATES, description="answers to rank, in place of generating one"
    )
    # What would change the answer, and cannot be done, is refused:
    tools: list[Any] | None = Field(None, description="refused, as are functions and audio")
    functions: list[Any] | None = None
    audio: dict[str, Any] | None = None
    response_format: ResponseFormat | None = Field(None, description="text only")
    logprobs: bool | None = Field(None, description="true is refused")
    frequency_penalty: float | None = Field(None, description="0 only: see repetition_penalty")
    presence_penalty: float | None = Field(None, description="0 only")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        refused = ("tools", "functions", "audio", "logprobs", "frequency_penalty", "presence_penalty")
        if given := [name for name in refused if getattr(self, name)]:
            raise ValueError(f"{given[0]}: is not supported")
        if self.response_format is not None and self.response_format.type != "text":
            raise ValueError("response_format: only text is supported")
        if self.candidates and (self.n or 1) > 1:
            raise ValueError("n: not with candidates, which are ranked")
        return self

    @property
    def is_sampled(self) -> bool:
        return bool(self.temperature)

    def generation(self) -> dict[str, Any]:
        """In the words of /caption and /vqa. A stream has a seed, so that a row that is retried says the same."""
        values: dict[str, Any] = {name: value for name in EXTRAS if (value := getattr(self, name)) is not None}
        if longest := self.max_completion_tokens or self.max_tokens:
            values["max_new_tokens"] = min(longest, LONGEST)
        if self.is_sampled:
            values |= {"sample": True, "temperature": max(self.temperature or 0.0, LEAST_TEMPERATURE)}
            if self.top_p is not None:
                values["top_p"] = max(self.top_p, LEAST_TOP_P)
            if self.seed is not None:
                values["seed"] = self.seed % SEEDS
            elif self.stream:
                values["seed"] = random.randrange(SEEDS)  # noqa: S311
        return values


class AnswersFields(VqaFields):
    """`/vqa` with several answers to a question."""

    num_answers: int = Field(1, ge=1, le=8)

    @property
    def num_sequences(self) -> int:
        return self.num_answers


@dataclass(frozen=True, slots=True)
class Asked:
    fields: ChatFields
    conversation: Conversation
    image: Upload
    settings: Settings

    @property
    def num_chars(self) -> int:
        """About what is tokenised."""
        said = [self.conversation.text, *(text for turn in self.conversation.turns for text in turn)]
        return sum(map(len, [*said, *(self.fields.candidates or ())]))

    def caption_fields(self, model: str | None) -> CaptionFields:
        """The text is no prompt: "Create a caption with one sentence" is not how captions begin. Raises
        InvalidInputError."""
        if self.fields.candidates is not None:
            raise InvalidInputError("candidates: only with a question")
        values = {"model": model, "num_captions": self.fields.n or 1, **self.fields.generation()}
        return validated(CaptionFields, values, Context(self.settings, 1))

    def question_fields(self, model: str | None, *, with_history: bool, is_chosen: bool) -> AnswersFields:
        """`with_history`: whether the model takes one; else earlier turns are dropped. `is_chosen`: whether the model
        chooses its answer, as all do with `candidates`: what clients say of its writing does nothing.

        Raises InvalidInputError."""
        if not self.conversation.text:
            raise InvalidInputError("messages: a question is needed")
        values: dict[str, Any] = {"model": model, "question": [self.conversation.text]}
        if self.fields.candidates is not None:
            values["candidates"] = self.fields.candidates
        elif is_chosen:
            if (self.fields.n or 1) > 1:
                raise InvalidInputError("n: the model writes no answer, it chooses one")
        else:
            values |= {"num_answers": self.fields.n or 1, **self.fields.generation()}
        if with_history and (turns := self.conversation.turns[-self.settings.max_items :]):
            values["history"] = [{"question": question, "answer": answer} for question, answer in turns]
        return validated(AnswersFields, values, Context(self.settings, 1))


def read_chat(body: bytes, settings: Settings) -> Asked:
    """Raises MalformedError, InvalidInputError."""
    return _asked(validated(ChatFields, read_object(body), Context(settings, 0), strict=True), settings)


def _asked(fields: ChatFields, settings: Settings) -> Asked:
    conversation = read_conversation(fields.messages)
    place = "messages: image"
    return Asked(fields, conversation, upload(read_image(conversation.image, place), place), settings)


class TextFormat(Open):
    format: ResponseFormat | None = None


class ResponsesFields(Open):
    """The plain form: no tools, nothing stored, no stream."""

    model: ModelName | None = Field(None, description="as in /v1/chat/completions")
    input: str | Messages = Field(description="messages with parts input_text and input_image")
    max_output_tokens: int | None = Field(None, ge=1, description=f"above {LONGEST}: {LONGEST}")
    temperature: float | None = Field(None, ge=0, le=100, description="0 or absent: beams; else sampling")
    top_p: float | None = Field(None, ge=0, le=1)
    text: TextFormat | None = Field(None, description="format: text only")
    stream: bool | None = Field(None, description="true is refused")
    background: bool | None = Field(None, description="true is refused")
    tools: list[Any] | None = Field(None, description="refused")
    previous_response_id: str | None = Field(None, description="refused: nothing is stored")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if given := [one for one in ("stream", "background", "tools", "previous_response_id") if getattr(self, one)]:
            raise ValueError(f"{given[0]}: is not supported here")
        if self.text is not None and self.text.format is not None and self.text.format.type != "text":
            raise ValueError("text: only the format text is supported")
        return self

    def as_chat(self) -> ChatFields:
        messages = [Message(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        return ChatFields(
            model=self.model,
            messages=messages,
            max_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
        )


def read_responses(body: bytes, settings: Settings) -> Asked:
    """Raises MalformedError, InvalidInputError."""
    fields = validated(ResponsesFields, read_object(body), Context(settings, 0), strict=True)
    return _asked(fields.as_chat(), settings)
