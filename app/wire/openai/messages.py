"""A conversation as OpenAI's clients send it: which image it is about, what is asked, and which turns came before."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field

from app.errors import InvalidInputError
from app.wire.open import Open, at_most
from models.base import Task

MAX_MESSAGES = 2048
MAX_PARTS = 256  # of a message
TEXT_PARTS = {"text", "input_text", "output_text"}
IMAGE_PARTS = {"image_url", "input_image", "image"}
# Of which BLIP's answer is worth something. Not "can" or "could": "can you describe it" would be answered "yes".
INTERROGATIVE = re.compile(
    r"(what|who|whom|whose|which|when|where|why|how|is|are|was|were|do|does|did|has|have)\b", re.IGNORECASE
)


class ImageUrl(Open):
    url: str = Field(description="data:image/...;base64, ..., or a URL where the operator allows that")


class Part(Open):
    type: str = Field(description="text, image_url, input_text or input_image; image: LangChain's block")
    text: str | None = None
    image_url: ImageUrl | str | None = None
    data: str | None = Field(None, description="LangChain's: base64")

    @property
    def image(self) -> str:
        """Raises InvalidInputError."""
        encoded = self.image_url.url if isinstance(self.image_url, ImageUrl) else self.image_url or self.data
        if not encoded:
            raise InvalidInputError(f"messages: a part of type {self.type[:64]!r} holds no image")
        return encoded


class Message(Open):
    role: str = Field(description="user, assistant; system and developer are ignored")
    content: str | Annotated[list[Part], Field(max_length=MAX_PARTS), at_most(MAX_PARTS)] | None = None

    @property
    def text(self) -> str:
        if not isinstance(self.content, list):
            return (self.content or "").strip()
        return "\n".join(part.text for part in self.content if part.type in TEXT_PARTS and part.text).strip()

    @property
    def images(self) -> list[Part]:
        return [part for part in self.content if part.type in IMAGE_PARTS] if isinstance(self.content, list) else []


Messages = Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES), at_most(MAX_MESSAGES)]


@dataclass(frozen=True, slots=True)
class Conversation:
    image: str  # base64, a data URI or a URL
    text: str  # of the last message; empty: only the image was sent
    turns: tuple[tuple[str, str], ...]  # questions and answers about this image, oldest first

    @property
    def task(self) -> Task:
        """The rule, and nothing cleverer: a question is answered, all else is captioned."""
        return Task.VQA if "?" in self.text or INTERROGATIVE.match(self.text) else Task.CAPTION


def read_conversation(messages: Sequence[Message]) -> Conversation:
    """The newest image is the subject. Raises InvalidInputError."""
    spoken = [message for message in messages if message.role not in ("system", "developer")]
    _check(spoken)
    last = spoken[-1]
    if len(last.images) > 1:
        raise InvalidInputError("messages: one image at a time: the last message has several")
    shown = [place for place, message in enumerate(spoken) if message.role == "user" and message.images]
    if not shown:
        raise InvalidInputError("messages: no image: this model speaks about images only")
    about = spoken[shown[-1] :]
    return Conversation(about[0].images[-1].image, last.text, _turns(about))


def _check(spoken: Sequence[Message]) -> None:
    if not spoken or spoken[-1].role != "user":
        raise InvalidInputError("messages: the last must be the user's")
    for message in spoken:
        if message.role not in ("user", "assistant"):
            raise InvalidInputError(f"messages: the role {message.role[:64]!r} is not supported")
        parts: Any = message.content if message.role == "user" and isinstance(message.content, list) else ()
        for part in parts:
            if part.type not in TEXT_PARTS | IMAGE_PARTS:
                raise InvalidInputError(f"messages: a part of type {part.type[:64]!r} is not supported")


def _turns(about: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    """What the user asked, and the assistant answered at once."""
    pairs = pairwise(about)
    return tuple(
        (asked.text, answered.text)
        for asked, answered in pairs
        if (asked.role, answered.role) == ("user", "assistant") and asked.text and answered.text
    )
