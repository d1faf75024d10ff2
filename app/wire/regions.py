"""What /segment and /detect take, and what they answer."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, ValidationInfo, model_validator
from typing_extensions import TypedDict  # pydantic requires it before Python 3.12

from app.wire.schemas import Fields, Texts, TextsOrNone, check_pairs

FEW_DETECTIONS = 100
MOST_DETECTIONS = 1000


class SegmentFields(Fields):
    num_images: ClassVar[tuple[int, int | None]] = (1, 1)

    text: Texts = Field(min_length=1, description="what to look for: one text or a list")

    @model_validator(mode="after")
    def _bounded(self, info: ValidationInfo) -> Self:
        check_pairs(len(self.text), info)
        return self


class DetectFields(Fields):
    num_images: ClassVar[tuple[int, int | None]] = (1, 1)
    pictures: ClassVar[tuple[str, ...]] = ("example",)

    text: TextsOrNone = Field([], description="what to look for: one text or a list")
    example: str | None = Field(None, description="in place of texts, a picture of what to look for")
    threshold: float = Field(0.1, ge=0, le=1, description="the least score of what is told")
    top_k: int = Field(FEW_DETECTIONS, ge=1, le=MOST_DETECTIONS, description="how many are told at most, best first")

    @model_validator(mode="after")
    def _one_of_both(self, info: ValidationInfo) -> Self:
        if bool(self.text) == (self.example is not None):
            raise ValueError("text, example: one of the two is needed, and not both")
        check_pairs(len(self.text), info)
        return self


class Segment(TypedDict):
    text: str
    score: Annotated[float, Field(ge=0, le=1, description="the highest probability in the mask")]
    mask: Annotated[
        str,
        Field(
            description="PNG in base64, as large as the image when it is upright: gray, of each pixel the probability "
            "that it is what the text names, 0 to 255"
        ),
    ]


class SegmentAnswer(TypedDict):
    model: str
    segments: Annotated[list[Segment], Field(description="one for each text, in order")]


class Detection(TypedDict):
    text: Annotated[str | None, Field(description="the text that fits best; null: the example")]
    score: Annotated[float, Field(ge=0, le=1)]
    box: Annotated[
        list[float],
        Field(
            min_length=4,
            max_length=4,
            description="left, top, right and bottom in pixels of the upright image, as the model has them: "
            "all or a part may be outside",
        ),
    ]


class DetectAnswer(TypedDict):
    model: str
    detections: Annotated[list[Detection], Field(description="best first")]
