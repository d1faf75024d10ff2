"""Response bodies, as OpenAI's clients read them; /openapi.json is made from them. `blip` holds what OpenAI has not.

What may be null is always there; NotRequired, because FastAPI leaves nulls out of the examples."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic requires it before Python 3.12

from app.wire.answers import RankedCandidate


class ErrorDetail(TypedDict):
    message: str
    type: Annotated[
        str,
        Field(
            description="invalid_request_error, authentication_error, not_found_error, rate_limit_error or server_error"
        ),
    ]
    param: NotRequired[Annotated[str | None, Field(description="the field that is wrong")]]
    code: str


class ErrorAnswer(TypedDict):
    error: ErrorDetail


class ModelEntry(TypedDict):
    id: Annotated[str, Field(description="a served model; `:caption` or `:vqa` behind it fixes the task")]
    object: Literal["model"]
    created: Annotated[int, Field(description="when the service started, in seconds since 1970")]
    owned_by: Literal["blip-serve"]


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[ModelEntry]


class Usage(TypedDict):
    prompt_tokens: Annotated[int, Field(description="what the model reads before it generates")]
    completion_tokens: int
    total_tokens: int


class Extras(TypedDict):
    task: Literal["caption", "vqa"]
    confidence: Annotated[float, Field(description="as in /caption and /vqa")]
    candidates: NotRequired[Annotated[list[RankedCandidate], Field(description="with `candidates`: best first")]]
    history_used: NotRequired[Annotated[int, Field(description="how many earlier turns fit into the prompt")]]


class ChatMessage(TypedDict):
    role: Literal["assistant"]
    content: str
    refusal: NotRequired[None]


class ChatChoice(TypedDict):
    index: int
    message: ChatMessage
    logprobs: NotRequired[None]
    finish_reason: Literal["stop", "length"]
    blip: Extras


class Completion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Delta(TypedDict):
    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]


class ChunkChoice(TypedDict):
    index: int
    delta: Delta
    logprobs: NotRequired[None]
    finish_reason: NotRequired[Literal["stop", "length"] | None]
    blip: NotRequired[Extras]


class Chunk(TypedDict):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: NotRequired[Usage | None]


class EmbeddingUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


class EmbeddingEntry(TypedDict):
    object: Literal["embedding"]
    index: int
    embedding: Annotated[list[float] | str, Field(description="a unit vector, or its little-endian float32 in base64")]


class EmbeddingsAnswer(TypedDict):
    object: Literal["list"]
    data: list[EmbeddingEntry]
    model: str
    usage: EmbeddingUsage


class OutputText(TypedDict):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]


class OutputMessage(TypedDict):
    type: Literal["message"]
    id: str
    status: Literal["completed", "incomplete"]
    role: Literal["assistant"]
    content: list[OutputText]


class ResponseUsage(TypedDict):
    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponseAnswer(TypedDict):
    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete"]
    error: NotRequired[None]
    incomplete_details: NotRequired[dict[str, str] | None]
    instructions: NotRequired[None]
    max_output_tokens: NotRequired[int | None]
    model: str
    output: list[OutputMessage]
    parallel_tool_calls: bool
    previous_response_id: NotRequired[None]
    store: bool
    temperature: NotRequired[float | None]
    tool_choice: Literal["none"]
    tools: list[Any]
    top_p: NotRequired[float | None]
    usage: ResponseUsage
    blip: Extras
