"""What the service answers, field by field as /openapi.json has it. What is not always there is None."""

from __future__ import annotations

import base64
import sys
from array import array
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

Vector = list[float]


class Result(BaseModel):
    """Fields that a newer service adds are let pass."""

    model_config = ConfigDict(frozen=True, extra="ignore")


# --- /caption, /vqa ---


class Sentence(Result):
    text: str
    confidence: float  # exp(mean log-probability of the generated tokens)


class Caption(Sentence):
    alternatives: list[Sentence]  # the other `num_captions` - 1


class CaptionAnswer(Result):
    model: str
    captions: list[Caption]  # one for each image, in order


class RankedCandidate(Result):
    answer: str
    probability: float


class Answer(Result):
    question: str
    answer: str
    confidence: float
    candidates: list[RankedCandidate] | None = None  # best first
    history_used: int | None = None  # turns that fit into the prompt


class VqaAnswer(Result):
    model: str
    answers: list[Answer]  # one for each question, in order


# --- /match, /embed ---


class PairScores(Result):
    itm: float | None = None  # probability of a match
    itm_logits: list[float] | None = None  # [no match, match]
    itc: float | None = None  # cosine
    sum: float | None = None  # match logit + cosine, what the papers rank by
    lm: float | None = None  # mean log-probability of the text as a caption


class MatchAnswer(Result):
    model: str
    scores: list[list[PairScores]]  # scores[i][t]: image i against text t


def _unpacked(value: Any) -> Any:
    """Little-endian float32 in base64, a string for each vector, as numbers."""
    if isinstance(value, str):
        numbers = array("f", base64.b64decode(value))
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers.tolist()
    return [_unpacked(one) for one in value] if _holds_strings(value) else value


def _holds_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


Vectors = Annotated[
    Vector | list[Vector], BeforeValidator(_unpacked, json_schema_input_type=Vector | list[Vector] | str | list[str])
]


class Embedding(Result):
    embedding: Vectors  # a vector, or one for each query of BLIP-2

    @property
    def vectors(self) -> list[Vector]:
        """All of them, also where there is only one."""
        several = [one for one in self.embedding if isinstance(one, list)]
        return several or [[one for one in self.embedding if not isinstance(one, list)]]


class EmbedAnswer(Result):
    model: str
    dimensions: int
    images: list[Embedding]  # one for each image, in order
    texts: list[Embedding]
    pairs: list[Embedding] | None = None  # space multimodal


# --- /classify, /rerank, /capfilt ---


class LabelScore(Result):
    label: str
    score: float
    itc: float | None = None


class ClassifyAnswer(Result):
    model: str
    classes: list[list[LabelScore]]  # of each image, best first


class PairExtras(Result):
    itc: float
    itm: float | None = None  # of those that the prefilter let pass


class RerankResult(Result):
    index: int  # of the document
    relevance_score: float
    document: dict[str, str] | None = None
    blip: PairExtras


class RerankUsage(Result):
    prompt_tokens: int
    total_tokens: int


class RerankAnswer(Result):
    id: str
    model: str
    results: list[RerankResult]  # best first
    usage: RerankUsage


class JudgedText(Result):
    text: str
    source: Literal["web", "synthetic"]
    itm: float
    kept: bool


class JudgedImage(Result):
    texts: list[JudgedText]


class CapfiltAnswer(Result):
    model: str
    images: list[JudgedImage]  # one for each image, in order


# --- /localize, /segment, /detect ---


class TokenMap(Result):
    token: str
    map: list[list[float]]


class LocalizeAnswer(Result):
    model: str
    text: str
    itm: float
    grid: list[int]  # rows and columns of patches
    map: list[list[float]]  # heat of each patch, row by row
    tokens: list[TokenMap] | None = None


class Segment(Result):
    text: str
    score: float  # the highest probability in the mask
    mask: str  # PNG in base64, as large as the upright image: gray, 0 to 255

    @property
    def png(self) -> bytes:
        return base64.b64decode(self.mask)


class SegmentAnswer(Result):
    model: str
    segments: list[Segment]  # one for each text, in order


class Detection(Result):
    text: str | None  # None: what looks like the example
    score: float
    box: list[float]  # left, top, right, bottom in pixels of the upright image


class DetectAnswer(Result):
    model: str
    detections: list[Detection]  # best first


# --- /models ---


class CheckpointInfo(Result):
    checkpoint: str
    revision: str | None
    device: str
    dtype: str
    image_size: int  # pixels
    kernels: dict[str, str] | None = None  # on a CPU, by what their products are for
    history: bool | None = None
    template: bool | None = None
    images: int | None = None
    answers: int | None = None
    temperature: float | None = None
    heads: list[str] | None = None
    logit_bias: float | None = None
    dimensions: int | None = None
    pooling: list[str] | None = None
    spaces: list[str] | None = None
    video: bool | None = None
    layer: int | None = None
    layers: int | None = None


class ModelInfo(Result):
    name: str
    family: str
    note: str | None
    template: str | None
    tasks: dict[str, CheckpointInfo]


class ModelsAnswer(Result):
    models: list[ModelInfo]
    limits: dict[str, float]  # what a request may have at most
