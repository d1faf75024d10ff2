"""POST /v1/embeddings: texts or images, in the words of /embed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from app.errors import InvalidInputError
from app.settings import Settings
from app.wire.forms import Form, read_image, read_object, upload, validated
from app.wire.open import ModelName, Open, at_most
from app.wire.openai.messages import Message, Messages
from app.wire.schemas import Context, EmbedFields, Text, listed

MAX_TEXTS = 1024
Inputs = Annotated[list[str], Field(min_length=1, max_length=MAX_TEXTS)]  # for /openapi.json


def _no_tokens(value: object) -> object:
    """LangChain sends token ids of OpenAI's own tokenizer unless told not to."""
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, int) or (isinstance(first, list) and all(isinstance(one, int) for one in first[:1])):
        raise ValueError("token ids are of another model: send texts (LangChain: check_embedding_ctx_length=False)")
    return value


class EmbeddingsFields(Open):
    model: ModelName | None = Field(None, description="a served model")
    input: Annotated[list[str], at_most(MAX_TEXTS), BeforeValidator(_no_tokens), listed(str | Inputs)] | None = Field(
        None, description="texts; with `modality` image: base64, data URIs, or URLs where the operator allows that"
    )
    messages: Messages | None = Field(None, description="in place of `input`: one message with one text or one image")
    modality: Literal["text", "image"] = Field("text", description="what `input` holds")
    encoding_format: Literal["float", "base64"] | None = Field(None, description="default float")
    dimensions: int | None = Field(None, ge=1, description="the model's own, or absent")
    pooling: Literal["mean"] | None = Field(None, description="where an image has several vectors: it must be `mean`")


class TextsFields(EmbedFields):
    text: Annotated[list[Text], at_most(MAX_TEXTS)] = Field([])


@dataclass(frozen=True, slots=True)
class EmbeddingsAsked:
    form: Form[EmbedFields]
    dimensions: int | None

    @property
    def num_chars(self) -> int:
        return self.form.num_chars


def read_embeddings(body: bytes, settings: Settings) -> EmbeddingsAsked:
    """Raises MalformedError, InvalidInputError."""
    fields = validated(EmbeddingsFields, read_object(body), Context(settings, 0), strict=True)
    texts, images = _inputs(fields)
    if len(images) > settings.max_items:
        raise InvalidInputError(f"input: {len(images)} images, at most {settings.max_items} are allowed")
    values: dict[str, Any] = {"model": fields.model, "text": texts, "encoding": fields.encoding_format or "float"}
    if images and fields.pooling:
        values["pooling"] = fields.pooling
    form_fields = validated(TextsFields, values, Context(settings, len(images)))
    places = ["input" if len(images) == 1 else f"input: {place}" for place in range(len(images))]
    uploads = tuple(upload(read_image(image, place), place) for image, place in zip(images, places, strict=True))
    return EmbeddingsAsked(Form(uploads, form_fields, sum(map(len, texts))), fields.dimensions)


def _inputs(fields: EmbeddingsFields) -> tuple[list[str], list[str]]:
    """Texts and images, of which one is empty. Raises InvalidInputError."""
    if (fields.input is None) == (fields.messages is None):
        raise InvalidInputError("input, messages: one of the two is needed")
    if fields.messages is not None:
        return _of_message(fields.messages)
    given = fields.input or []
    if not given:
        raise InvalidInputError("input: is empty")
    return ([], given) if fields.modality == "image" else (given, [])


def _of_message(messages: list[Message]) -> tuple[list[str], list[str]]:
    if len(messages) != 1 or messages[0].role != "user":
        raise InvalidInputError("messages: must be one message of the user")
    text, images = messages[0].text, [part.image for part in messages[0].images]
    if bool(text) + len(images) != 1:
        raise InvalidInputError("messages: must hold one text or one image: they have one vector each")
    return ([text], []) if text else ([], images)
