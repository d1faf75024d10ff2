"""Response bodies: typed dictionaries, which cost nothing to build; /openapi.json is made from them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic requires it before Python 3.12

ITM_HEADER = "X-Blip-Itm"  # of a picture, which has no other place for it


class Sentence(TypedDict):
    text: str
    confidence: Annotated[float, Field(gt=0, le=1, description="exp(mean log-probability of the generated tokens)")]


class Caption(Sentence):
    alternatives: Annotated[list[Sentence], Field(description="the other `num_captions` - 1")]


class CaptionAnswer(TypedDict):
    model: str
    captions: Annotated[list[Caption], Field(description="one for each image, in order")]


class RankedCandidate(TypedDict):
    answer: str
    probability: Annotated[float, Field(ge=0, le=1)]


class Answer(TypedDict):
    question: str
    answer: str
    confidence: Annotated[float, Field(ge=0, le=1)]
    candidates: NotRequired[Annotated[list[RankedCandidate], Field(description="rank mode: best first")]]
    history_used: NotRequired[Annotated[int, Field(description="how many turns of the history fit into the prompt")]]


class VqaAnswer(TypedDict):
    model: str
    answers: Annotated[list[Answer], Field(description="one for each question, in order")]


class PairScores(TypedDict):
    itm: NotRequired[Annotated[float, Field(ge=0, le=1, description="probability of a match")]]
    itm_logits: NotRequired[Annotated[list[float], Field(description="[no match, match]")]]
    itc: NotRequired[Annotated[float, Field(description="cosine")]]
    sum: NotRequired[Annotated[float, Field(description="match logit + cosine, what the papers rank by")]]
    lm: NotRequired[
        Annotated[float, Field(le=0, description="mean log-probability of the text's tokens under the caption decoder")]
    ]


class MatchAnswer(TypedDict):
    model: str
    scores: Annotated[
        list[list[PairScores]], Field(description="scores[i][t]: image i against text t; a video is one image")
    ]


class Embedding(TypedDict):
    embedding: Annotated[
        list[float] | list[list[float]] | str | list[str],
        Field(description="a vector, or one for each query, of length 1 in space itc; base64 strings if asked for"),
    ]


class EmbedAnswer(TypedDict):
    model: str
    dimensions: int
    images: Annotated[list[Embedding], Field(description="one for each image, in order; a video is one image")]
    texts: list[Embedding]
    pairs: NotRequired[Annotated[list[Embedding], Field(description="space multimodal: one for each pair, in order")]]


class TokenMap(TypedDict):
    token: Annotated[str, Field(description="as the model's vocabulary has it; ## goes on a word")]
    map: list[list[float]]


class LocalizeAnswer(TypedDict):
    model: str
    text: str
    itm: Annotated[float, Field(ge=0, le=1, description="probability of a match")]
    grid: Annotated[list[int], Field(description="rows and columns of patches")]
    map: Annotated[list[list[float]], Field(description="heat of each patch, row by row: the mean of the tokens'")]
    tokens: NotRequired[list[TokenMap]]


class ProblemAnswer(TypedDict):
    type: str
    title: str
    status: int
    detail: str
    request_id: str


class HealthAnswer(TypedDict):
    status: Literal["live", "ready", "failing", "not ready"]
    reason: NotRequired[str]


class CheckpointInfo(TypedDict):
    checkpoint: Annotated[str, Field(description="a folder or a hub repository")]
    revision: str | None
    device: str
    dtype: str
    kernels: NotRequired[
        Annotated[
            dict[str, str],
            Field(description="on a CPU, of the products of tower, text and head: torch, onednn, fbgemm, or several"),
        ]
    ]
    image_size: Annotated[int, Field(description="pixels")]
    history: NotRequired[Annotated[bool, Field(description="vqa: whether it takes `history`, earlier turns")]]
    template: NotRequired[Annotated[bool, Field(description="vqa: whether it takes `template`, for the prompt")]]
    images: NotRequired[Annotated[int, Field(description="vqa: how many a question is about")]]
    answers: NotRequired[Annotated[int, Field(description="vqa: how many it chooses among; 0: it writes its own")]]
    temperature: NotRequired[
        Annotated[float | None, Field(description="match: what /classify multiplies cosines by before its softmax")]
    ]
    heads: NotRequired[
        Annotated[list[str], Field(description="match: values of `head`, which /match and /rerank have")]
    ]
    logit_bias: NotRequired[
        Annotated[
            float | None,
            Field(
                description="match: what /classify adds then, each label by itself, in place of the softmax; null: none"
            ),
        ]
    ]
    dimensions: NotRequired[Annotated[int | None, Field(description="embed: length of each vector")]]
    pooling: NotRequired[
        Annotated[list[str], Field(description="embed: values of `pooling`; empty if an image has one vector")]
    ]
    spaces: NotRequired[Annotated[list[str], Field(description="embed: values of `space`")]]
    video: NotRequired[Annotated[bool, Field(description="match, embed: whether it takes `video`")]]
    layer: NotRequired[Annotated[int, Field(description="localize: the default `layer`")]]
    layers: NotRequired[Annotated[int, Field(description="localize: layers there are; the last one is refused")]]


class ModelInfo(TypedDict):
    name: str
    family: str
    note: str | None
    template: Annotated[str | None, Field(description="of questions, set by the operator; null: the authors'")]
    tasks: dict[str, CheckpointInfo]


class ModelsAnswer(TypedDict):
    models: list[ModelInfo]
    limits: Annotated[dict[str, float], Field(description="what a request may have at most")]


def json_pieces(answer: Mapping[str, Any] | list[Any]) -> Iterator[bytes]:
    """An answer's JSON. Each entry of its lists is a piece of its own: none takes the encoder long."""
    if isinstance(answer, list):
        yield from _list_pieces(answer)
        return
    opening = "{"
    for name, value in answer.items():
        yield f"{opening}{_encoded(name)}:".encode()
        if isinstance(value, list):
            yield from _list_pieces(value)
        else:
            yield _encoded(value).encode()
        opening = ","
    yield b"}"


def _list_pieces(entries: list[Any]) -> Iterator[bytes]:
    yield b"["
    for place, entry in enumerate(entries):
        yield ("," * (place > 0) + _encoded(entry)).encode()
    yield b"]"


def _encoded(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
