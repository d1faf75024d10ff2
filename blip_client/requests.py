"""What can be asked, field by field as /openapi.json has it. None is not sent: the service's own default holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

from typing_extensions import TypedDict  # pydantic requires it before Python 3.12

from blip_client import results
from blip_client.images import File, Image, encoded, is_image

T = TypeVar("T")
Images: TypeAlias = Image | Iterable[Image]
Texts: TypeAlias = str | Iterable[str]


class Turn(TypedDict):
    """Of a dialogue."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    path: ClassVar[str]
    result: ClassVar[type[results.Result]]  # T
    method: ClassVar[str] = "POST"
    always: ClassVar[Mapping[str, object]] = {}  # how it is sent, which is no option

    def body(self) -> bytes | None:
        """JSON. Reads the files. Raises OSError."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        told = {name: self.on_the_wire(name, value) for name, value in given.items() if value is not None}
        return json.dumps({**told, **self.always}).encode()

    def on_the_wire(self, name: str, value: Any) -> Any:
        match name:
            case "image" | "example":
                return encoded(value)
            case "images":
                return [encoded(one) for one in ([value] if is_image(value) else value)]
            case _:
                return _listed(value)


def _listed(value: Any) -> Any:
    """Lists in place of other iterables."""
    if isinstance(value, str | int | float | Mapping):
        return value
    return [_listed(one) for one in value]


@dataclass(frozen=True, slots=True)
class OfModel(Request[T]):
    _: KW_ONLY
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Generating(OfModel[T]):
    _: KW_ONLY
    num_beams: int | None = None
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    length_penalty: float | None = None
    repetition_penalty: float | None = None
    sample: bool | None = None
    top_p: float | None = None
    top_k: int | None = None
    temperature: float | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class CaptionRequest(Generating[results.CaptionAnswer]):
    """A caption of each image, and `num_captions` - 1 alternatives. `prompt`: how they begin."""

    path: ClassVar[str] = "/caption"
    result: ClassVar[type[results.Result]] = results.CaptionAnswer

    images: Images
    _: KW_ONLY
    prompt: str | None = None
    num_captions: int | None = None


@dataclass(frozen=True, slots=True)
class VqaRequest(Generating[results.VqaAnswer]):
    """An answer to each question about an image, or about as many as the model takes: generated, or the most likely of
    `candidates`, or of the answers that the model knows."""

    path: ClassVar[str] = "/vqa"
    result: ClassVar[type[results.Result]] = results.VqaAnswer

    images: Images
    question: Texts
    _: KW_ONLY
    candidates: Iterable[str] | None = None
    rank_k: int | None = None
    top_candidates: int | None = None
    history: Iterable[Turn] | None = None
    template: str | None = None


@dataclass(frozen=True, slots=True)
class MatchRequest(OfModel[results.MatchAnswer]):
    """How well each text fits each image."""

    path: ClassVar[str] = "/match"
    result: ClassVar[type[results.Result]] = results.MatchAnswer

    images: Images
    text: Texts
    _: KW_ONLY
    head: Literal["itm", "itc", "both", "lm"] | None = None
    video: bool | None = None


@dataclass(frozen=True, slots=True)
class EmbedRequest(OfModel[results.EmbedAnswer]):
    """Vectors of images, of texts, or of both."""

    path: ClassVar[str] = "/embed"
    result: ClassVar[type[results.Result]] = results.EmbedAnswer
    always: ClassVar[Mapping[str, object]] = {"encoding": "base64"}  # a quarter of the bytes; the result has numbers

    images: Images | None = None
    text: Texts | None = None
    _: KW_ONLY
    pooling: Literal["none", "mean"] | None = None
    space: Literal["itc", "image", "text", "multimodal"] | None = None
    video: bool | None = None


@dataclass(frozen=True, slots=True)
class ClassifyRequest(OfModel[results.ClassifyAnswer]):
    """Which of the labels each image shows."""

    path: ClassVar[str] = "/classify"
    result: ClassVar[type[results.Result]] = results.ClassifyAnswer

    images: Images
    label: Iterable[str]
    _: KW_ONLY
    template: Texts | None = None
    head: Literal["itc", "itm"] | None = None
    multi_label: bool | None = None
    top_k: int | None = None


Side: TypeAlias = str | File | Mapping[str, Any]
"""A string is a text, all else an image. {"image": ...} takes a path or a URL that is a string."""


@dataclass(frozen=True, slots=True)
class RerankRequest(OfModel[results.RerankAnswer]):
    """Texts by how well they fit an image, or images by how well they fit a text; best first."""

    path: ClassVar[str] = "/rerank"
    result: ClassVar[type[results.Result]] = results.RerankAnswer

    query: Side
    documents: Iterable[Side]
    _: KW_ONLY
    top_n: int | None = None
    return_documents: bool | None = None
    score: Literal["itm", "sum", "itc"] | None = None
    video: bool | None = None
    prefilter: int | None = None

    def on_the_wire(self, name: str, value: Any) -> Any:
        match name:
            case "query":
                return _side(value)
            case "documents":
                return [_side(one) for one in value]
            case _:
                return value


def _side(side: Side) -> dict[str, Any]:
    if isinstance(side, str):
        return {"text": side}
    if isinstance(side, Mapping):
        return {name: encoded(value) if name == "image" else value for name, value in side.items()}
    return {"image": encoded(side)}


@dataclass(frozen=True, slots=True)
class CapfiltRequest(OfModel[results.CapfiltAnswer]):
    """Which of the web texts of each image, and of the captions drawn for it, fit it. `text`: of the only image, one or
    a list; of several, for each one or a list."""

    path: ClassVar[str] = "/capfilt"
    result: ClassVar[type[results.Result]] = results.CapfiltAnswer

    images: Images
    text: str | Iterable[Texts] | None = None
    _: KW_ONLY
    num_captions: int | None = None
    seed: int | None = None
    threshold: float | None = None
    keep: Literal["all", "best", "filtered"] | None = None


@dataclass(frozen=True, slots=True)
class LocalizeRequest(OfModel[results.LocalizeAnswer]):
    """Where in an image a text is, as heat of its patches."""

    path: ClassVar[str] = "/localize"
    result: ClassVar[type[results.Result]] = results.LocalizeAnswer

    image: Image
    text: str
    _: KW_ONLY
    layer: int | None = None
    tokens: bool | None = None


@dataclass(frozen=True, slots=True)
class SegmentRequest(OfModel[results.SegmentAnswer]):
    """A mask of the image for each text."""

    path: ClassVar[str] = "/segment"
    result: ClassVar[type[results.Result]] = results.SegmentAnswer

    image: Image
    text: Texts


@dataclass(frozen=True, slots=True)
class DetectRequest(OfModel[results.DetectAnswer]):
    """Boxes of what texts name in the image, or of what looks like the picture `example`; best first."""

    path: ClassVar[str] = "/detect"
    result: ClassVar[type[results.Result]] = results.DetectAnswer

    image: Image
    text: Texts | None = None
    _: KW_ONLY
    example: Image | None = None
    threshold: float | None = None
    top_k: int | None = None


@dataclass(frozen=True, slots=True)
class ModelsRequest(Request[results.ModelsAnswer]):
    """The served models, and what a request may have at most."""

    path: ClassVar[str] = "/models"
    result: ClassVar[type[results.Result]] = results.ModelsAnswer
    method: ClassVar[str] = "GET"

    def body(self) -> bytes | None:
        return None
