"""What /capfilt takes, and what it answers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator
from typing_extensions import TypedDict  # pydantic requires it before Python 3.12

from app.wire.schemas import Fields, Many, Said, Text, check_pairs, context_of
from models.inputs import GenerationSettings, Sampling


def _of_each_image(texts: object, info: ValidationInfo) -> object:
    """One text, or a list of them, for each image; all are the only image's. Their number is checked before each is."""
    num_images = context_of(info).num_images
    entries = texts if isinstance(texts, list) else [texts]
    if not entries:
        return []
    if num_images == 1 and not any(isinstance(entry, list) for entry in entries):
        entries = [entries]
    if len(entries) != num_images:
        raise ValueError(f"{len(entries)} given for {num_images} images: one is needed for each, or a list (in JSON)")
    lists = [entry if isinstance(entry, list) else [entry] for entry in entries]
    check_pairs(sum(map(len, lists)), info)
    return lists


class CapfiltFields(Fields):
    text: Annotated[
        list[list[Text]],
        BeforeValidator(
            _of_each_image,
            json_schema_input_type=Said | Annotated[list[Said | Annotated[list[Said], Many]], Many],
        ),
    ] = Field(
        [],
        description="web texts: of the only image, one or a list; of several, for each one or (in JSON) a list",
    )
    num_captions: int = Field(1, ge=1, le=8, description="synthetic captions of each image, drawn with top_p 0.9")
    seed: int | None = Field(None, ge=0, lt=2**63, description="makes them repeatable; default: none")
    threshold: float = Field(0.5, ge=0, le=1, description="the least ITM probability of a text that is kept")
    keep: Literal["all", "best", "filtered"] = Field(
        "all", description="which texts are returned: all, of each image the one with the best ITM, or the kept ones"
    )

    @model_validator(mode="after")
    def _bounded(self, info: ValidationInfo) -> Self:
        check_pairs(sum(map(len, self.text)) + self.num_captions * context_of(info).num_images, info)
        return self

    def texts(self, num_images: int) -> list[list[str]]:
        """The web texts of each image."""
        return self.text or [[] for _ in range(num_images)]

    def settings(self) -> GenerationSettings:
        """Nucleus sampling, as in section 3.3 of the paper: it surprises more than beams do, and the filter follows."""
        return GenerationSettings(num_sequences=self.num_captions, sampling=Sampling(seed=self.seed))


Source = Literal["web", "synthetic"]


class JudgedText(TypedDict):
    text: str
    source: Source
    itm: Annotated[float, Field(ge=0, le=1, description="probability of a match")]
    kept: Annotated[bool, Field(description="whether itm is at least the threshold")]


class JudgedImage(TypedDict):
    texts: Annotated[list[JudgedText], Field(description="web texts in order, then the synthetic captions")]


class CapfiltAnswer(TypedDict):
    model: str
    images: Annotated[list[JudgedImage], Field(description="one for each image, in order")]
