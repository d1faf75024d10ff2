"""The bodies of /classify and /rerank, and their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NotRequired, Self

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, model_validator
from typing_extensions import TypedDict  # pydantic requires it before Python 3.12

from app.errors import InvalidInputError
from app.settings import Settings
from app.wire.forms import Upload, is_data_uri, read_image, read_object, upload, validated
from app.wire.open import ModelName, Open, at_most
from app.wire.schemas import VIDEO_FRAMES, Context, Fields, Said, Text, check_pairs, context_of, listed, with_one_place

MAX_LABELS = 1024
MAX_TEMPLATES = 128
MAX_PROMPTS = 8192  # labels in templates
MAX_PROMPT_CHARS = 2**22  # of all of them
TEMPLATE = "a photo of {}."
PREFILTER = 128  # the authors' k_test: 128 for Flickr30k, 256 for COCO

# --- /classify ------------------------------------------------------------------------------------------------------

Template = Annotated[Text, AfterValidator(with_one_place)]
# For /openapi.json alone.
Labels = Annotated[list[Said], Field(min_length=2, max_length=MAX_LABELS)]
Placed = Annotated[Said, Field(json_schema_extra={"pattern": r"\{\}"})]
Templates = Annotated[list[Placed], Field(min_length=1, max_length=MAX_TEMPLATES)]


class ClassifyFields(Fields):
    label: Annotated[list[Text], at_most(MAX_LABELS), listed(Labels)] = Field(
        min_length=2, description="what the image may show"
    )
    template: Annotated[list[Template], at_most(MAX_TEMPLATES), listed(Placed | Templates)] = Field(
        [TEMPLATE],
        min_length=1,
        description="of the label's text; {} is the label. The embeddings of several are averaged (itc)",
    )
    head: Literal["itc", "itm"] = Field(
        "itc",
        description="itc: softmax of the scaled cosines, or the sigmoid of each where the model was trained so "
        "(`logit_bias` in /models); itm: softmax of match logits",
    )
    multi_label: bool = Field(False, description="itm: the probability of each label by itself")
    top_k: int | None = Field(None, ge=1, le=MAX_LABELS, description="labels to return, best first; default all")

    @classmethod
    def adapted(cls, values: dict[str, Any]) -> tuple[type[Self], dict[str, Any]]:
        """Hugging Face's zero-shot image classification: {"inputs": base64, "parameters": {"candidate_labels"}}."""
        if "inputs" not in values:
            return cls, values
        parameters = values.get("parameters")
        if values.keys() - {"inputs", "parameters", "options"} or not isinstance(parameters, dict):
            raise InvalidInputError("inputs: goes with an object `parameters`, which holds candidate_labels, alone")
        if unknown := parameters.keys() - {"candidate_labels", "hypothesis_template"}:
            raise InvalidInputError(f"parameters: unknown field {min(unknown)[:64]!r}")
        ours = {"image": values["inputs"], "label": parameters.get("candidate_labels")}
        if parameters.get("hypothesis_template") is not None:
            ours["template"] = parameters["hypothesis_template"]
        return ZeroShotFields, ours  # type: ignore[return-value]

    @model_validator(mode="after")
    def _possible(self, info: ValidationInfo) -> Self:
        if self.head == "itm":
            if len(self.template) > 1:
                raise ValueError("template: several only with the head itc, which averages their embeddings")
            check_pairs(len(self.label) * context_of(info).num_images, info)
        elif self.multi_label:
            raise ValueError("multi_label: only with the head itm")
        labels, templates = len(self.label), len(self.template)
        if labels * templates > MAX_PROMPTS:
            raise ValueError(f"label, template: more than {MAX_PROMPTS} texts")
        num_chars = templates * sum(map(len, self.label)) + labels * sum(map(len, self.template))
        if num_chars > MAX_PROMPT_CHARS:
            raise ValueError(f"label, template: together more than {MAX_PROMPT_CHARS} characters")
        return self

    def prompts(self, label: str) -> list[str]:
        return [template.replace("{}", label) for template in self.template]


class ZeroShotFields(ClassifyFields):
    """Asked as of Hugging Face, and answered so."""


class LabelScore(TypedDict):
    label: str
    score: Annotated[
        float, Field(ge=0, le=1, description="of all labels they sum to 1, but for `multi_label` and sigmoids")
    ]
    itc: NotRequired[Annotated[float, Field(description="cosine")]]


class ClassifyAnswer(TypedDict):
    model: str
    classes: Annotated[list[list[LabelScore]], Field(description="of each image, best first")]


# --- /rerank --------------------------------------------------------------------------------------------------------


class Side(Open):
    """A text or an image: what a query or a document is."""

    text: str | None = None
    image: str | None = Field(None, description="base64, a data URI, or a URL where the operator allows that")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.text is None) == (self.image is None):
            raise ValueError("must be a text or an image")
        return self


Sided = str | Side


class RerankFields(Open):
    """As Cohere, Jina and vLLM have it; `texts` as text-embeddings-inference has it."""

    model: ModelName | None = Field(None, description="a served model; default: the profile's first one that matches")
    query: Sided = Field(description='a text, {"text"} or {"image"}')
    documents: Annotated[list[Sided], at_most(MAX_LABELS)] | None = Field(
        None, min_length=1, max_length=MAX_LABELS, description="texts for an image, images for a text"
    )
    texts: Annotated[list[str], at_most(MAX_LABELS)] | None = Field(
        None, min_length=1, max_length=MAX_LABELS, description="in place of documents: the answer is a list then"
    )
    top_n: int | None = Field(None, ge=1, description="results to return; default all")
    return_documents: bool | None = None
    return_text: bool | None = Field(None, description="the same, with `texts`")
    raw_scores: bool | None = Field(None, description="true is refused: ask for `score` sum")
    score: Literal["itm", "sum", "itc"] | None = Field(
        None,
        description="match probability; match logit + cosine, as the papers rank; cosine alone. Default: itm, or itc "
        "where the model has no other",
    )
    video: bool = Field(
        False,
        description=f"each image is a video of {VIDEO_FRAMES} frames at most: those of an animated GIF or WebP (only "
        f"models with `video` in /models). Counts as {VIDEO_FRAMES} images",
    )
    prefilter: int = Field(PREFILTER, ge=1, le=MAX_LABELS, description="the best so many by ITC are scored by ITM")

    @model_validator(mode="after")
    def _possible(self, info: ValidationInfo) -> Self:
        if (self.documents is None) == (self.texts is None):
            raise ValueError("documents, texts: one of the two is needed")
        if self.raw_scores:
            raise ValueError("raw_scores: is not supported: ask for `score` sum")
        if self.score != "itc":
            check_pairs(min(self.prefilter, len(self.given)) * (VIDEO_FRAMES if self.video else 1), info)
        return self

    @property
    def given(self) -> list[Sided]:
        return self.documents or [*(self.texts or ())]


class _Texts(BaseModel):
    query: Text | None = None
    documents: list[Text] = []


@dataclass(frozen=True, slots=True)
class RerankAsked:
    """One side is texts, the other images; one of them has a single entry, the query."""

    fields: RerankFields
    texts: list[str]
    images: Sequence[Upload]
    num_chars: int

    def with_images(self, images: Sequence[Upload], /) -> Self:
        return replace(self, images=images)

    def text(self, index: int) -> str:
        """Of the pair with this document."""
        return self.texts[index if len(self.texts) > 1 else 0]

    def image(self, index: int) -> Upload:
        return self.images[index if len(self.images) > 1 else 0]


def read_rerank(body: bytes, settings: Settings) -> RerankAsked:
    """Raises MalformedError, InvalidInputError."""
    context = Context(settings, 0)
    fields = validated(RerankFields, read_object(body), context, strict=True)
    query, documents = _image(fields.query), [_image(one) for one in fields.given]
    images = [one for one in documents if one is not None]
    if len(images) not in (0, len(documents)) or (query is None) == (not images):
        raise InvalidInputError("documents: must be texts for an image, or images for a text")
    if len(images) > settings.max_items:
        raise InvalidInputError(f"documents: {len(images)} images, at most {settings.max_items} are allowed")
    if fields.video and len(images) * VIDEO_FRAMES > max(settings.max_items, VIDEO_FRAMES):
        raise InvalidInputError(
            f"documents: {len(images)} videos of {VIDEO_FRAMES} frames, at most {settings.max_items} frames are allowed"
        )
    if query is None:
        told = validated(_Texts, {"query": _text(fields.query)}, context)
        texts = [told.query or ""]
    else:
        texts = validated(_Texts, {"documents": [_text(one) for one in fields.given]}, context).documents
        images = [query]
    places = [f"documents: {place}" for place in range(len(images))] if query is None else ["query"]
    uploads = [upload(read_image(one, place), place) for one, place in zip(images, places, strict=True)]
    return RerankAsked(fields, texts, uploads, sum(map(len, texts)))


def _image(side: Sided) -> str | None:
    """A data URI is an image also where it stands for a text, as where a client can send nothing else."""
    if isinstance(side, Side):
        return side.image
    return side if is_data_uri(side) else None


def _text(side: Sided) -> str | None:
    return side.text if isinstance(side, Side) else side


class PairExtras(TypedDict):
    itc: float
    itm: NotRequired[Annotated[float, Field(description="of those that the prefilter let pass")]]


class RerankResult(TypedDict):
    index: int
    relevance_score: Annotated[float, Field(description="of those that the prefilter held back: 0, with `sum` -100")]
    document: NotRequired[dict[str, str]]
    blip: PairExtras


class RerankUsage(TypedDict):
    prompt_tokens: Annotated[int, Field(description="what was read; texts whose embeddings are kept were not, for ITC")]
    total_tokens: int


class RerankAnswer(TypedDict):
    id: str
    model: str
    results: Annotated[list[RerankResult], Field(description="best first")]
    usage: RerankUsage


class TextResult(TypedDict):
    index: int
    score: float
    text: NotRequired[str]
