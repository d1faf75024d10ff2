"""Request bodies: all fields but the images, validated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from app.settings import Settings
from models.inputs import GenerationSettings, Sampling, Turn

DEFAULT_RANK_K = 128
MAX_CANDIDATES = 4096
FEW_ANSWERS = 10  # of a model that chooses among its own
MAX_RETURNED = 2**18  # candidates of one answer, over all its questions
VIDEO_FRAMES = 8  # num_frm_test of salesforce/BLIP configs/retrieval_msrvtt.yaml


class Context(NamedTuple):
    """What validating a request needs besides its fields."""

    settings: Settings
    num_images: int


def context_of(info: ValidationInfo) -> Context:
    return cast("Context", info.context)


def _limited(text: str, info: ValidationInfo) -> str:
    if not _is_unicode(text):
        raise ValueError("is not valid Unicode")
    limit = context_of(info).settings.max_text_chars
    if len(text) > limit:
        raise ValueError(f"has {len(text)} characters, at most {limit} are allowed")
    return text


def _is_unicode(text: str) -> bool:
    """Without lone surrogates, which JSON can hold and no tokeniser can read."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _stripped(text: str) -> str:
    if not (stripped := text.strip()):
        raise ValueError("is empty")
    return stripped


def listed(shown: Any) -> BeforeValidator:
    """A string is a list of one. `shown`: the type that /openapi.json tells."""
    return BeforeValidator(lambda value: [value] if isinstance(value, str) else value, json_schema_input_type=shown)


def _few(texts: object, info: ValidationInfo) -> object:
    """Checked before each text is."""
    limit = context_of(info).settings.max_items
    if isinstance(texts, list) and len(texts) > limit:
        raise ValueError(f"{len(texts)} items, at most {limit} are allowed")
    return texts


def _not_too_many(candidates: object) -> object:
    """As `_few`."""
    if isinstance(candidates, list) and len(candidates) > MAX_CANDIDATES:
        raise ValueError(f"{len(candidates)} items, at most {MAX_CANDIDATES} are allowed")
    return candidates


def _objects(value: object) -> object:
    if isinstance(value, str) or (isinstance(value, list) and any(isinstance(turn, str) for turn in value)):
        raise ValueError("is a list of objects, which only a JSON body can hold")
    return value


def with_one_place(template: str) -> str:
    if template.count("{}") != 1:
        raise ValueError("must hold {} once, where the question or the label goes")
    return template


# For /openapi.json alone: what the validators check. The number of x-maxLength is the setting of that name.
MaxChars = Field(json_schema_extra={"x-maxLength": "max_text_chars"})
Said = Annotated[str, MaxChars, Field(json_schema_extra={"minLength": 1, "pattern": r"\S"})]
Few = Field(json_schema_extra={"x-maxItems": "max_items"})
Many = Field(json_schema_extra={"x-maxItems": "max_pairs"})
Some = Annotated[list[Said], Few, Field(json_schema_extra={"minItems": 1})]

Prompt = Annotated[str, AfterValidator(_limited), MaxChars]
Text = Annotated[Said, AfterValidator(_stripped), AfterValidator(_limited)]
Texts = Annotated[list[Text], BeforeValidator(_few), listed(Said | Some)]
TextsOrNone = Annotated[list[Text], BeforeValidator(_few), listed(Said | Annotated[list[Said], Few])]


class Fields(BaseModel):
    """The fields of every task. An unknown field is an error: a misspelt option must not be ignored."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)
    num_images: ClassVar[tuple[int, int | None]] = (1, None)  # fewest, most (None: BLIP_MAX_ITEMS)
    verbatim: ClassVar[frozenset[str]] = frozenset()  # where white space counts, and nothing at all is a value
    pictures: ClassVar[tuple[str, ...]] = ()  # fields that hold one more picture each; they are among a form's images

    model: str | None = Field(None, description="a served model; default: the profile's first one with this task")

    @classmethod
    def adapted(cls, values: dict[str, Any]) -> tuple[type[Self], dict[str, Any]]:
        """For a JSON body that has another service's shape: what to read it as, and its values by our names."""
        return cls, values


class GenerationFields(Fields):
    num_beams: int | None = Field(None, ge=1, le=8, description="default: BLIP 3, BLIP-2 5; num_captions if larger")
    max_new_tokens: int | None = Field(
        None, ge=1, le=256, description="default: captions BLIP 16, OPT 29, T5 30; answers BLIP 9, BLIP-2 10"
    )
    min_new_tokens: int | None = Field(None, ge=0, le=256, description="default: captions BLIP 1; all others 0")
    length_penalty: float | None = Field(None, ge=-10, le=10, description="default: answers OPT 0, T5 -1; all others 1")
    repetition_penalty: float | None = Field(None, gt=0, le=10, description="default: 1; with `sample` BLIP 1.1")
    sample: bool = Field(False, description="draw tokens in place of beam search")
    top_p: float | None = Field(None, gt=0, le=1, description="sampling: probability kept; default 0.9")
    top_k: int | None = Field(None, ge=1, le=1000, description="sampling: tokens kept; default 50")
    temperature: float | None = Field(None, ge=0.01, le=100, description="sampling; default 1")
    seed: int | None = Field(None, ge=0, lt=2**63, description="sampling: makes it repeatable; default: none")

    @property
    def num_sequences(self) -> int:
        return 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        drawn = self.given("top_p", "top_k", "temperature", "seed")
        if drawn and not self.sample:
            raise ValueError(f"{', '.join(drawn)}: only with `sample`")
        if self.sample and (self.num_beams or 1) > 1:
            raise ValueError("num_beams: not with `sample`")
        if not self.sample and self.num_beams is not None and self.num_beams < self.num_sequences:
            raise ValueError("num_beams: smaller than num_captions")
        if self.min_new_tokens and self.max_new_tokens and self.min_new_tokens > self.max_new_tokens:
            raise ValueError("min_new_tokens: larger than max_new_tokens")
        return self

    def given(self, *names: str) -> list[str]:
        return [name for name in names if name in self.model_fields_set and getattr(self, name) is not None]

    def settings(self) -> GenerationSettings:
        drawn = {name: getattr(self, name) for name in self.given("top_p", "top_k", "temperature", "seed")}
        return GenerationSettings(
            num_sequences=self.num_sequences,
            num_beams=self.num_beams,
            max_new_tokens=self.max_new_tokens,
            min_new_tokens=self.min_new_tokens,
            length_penalty=self.length_penalty,
            repetition_penalty=self.repetition_penalty,
            sampling=Sampling(**drawn) if self.sample else None,
        )


class CaptionFields(GenerationFields):
    verbatim: ClassVar[frozenset[str]] = frozenset({"prompt"})

    prompt: Prompt | None = Field(
        None, description='how the caption begins; absent: BLIP "a picture of ", BLIP-2 none; "": none'
    )
    num_captions: int = Field(1, ge=1, le=8, description="captions of each image")

    @property
    def num_sequences(self) -> int:
        return self.num_captions


class TurnFields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    question: Text
    answer: Text


class VqaFields(GenerationFields):
    num_images: ClassVar[tuple[int, int | None]] = (1, 2)

    question: Texts = Field(min_length=1, description="one question or a list")
    candidates: Annotated[list[Text], BeforeValidator(_not_too_many), listed(list[Said])] | None = Field(
        None, min_length=2, max_length=MAX_CANDIDATES, description="answers to rank, in place of generating one"
    )
    rank_k: int | None = Field(None, ge=1, le=4096, description="candidates to score in full; default 128")
    top_candidates: int | None = Field(
        None,
        ge=1,
        le=MAX_CANDIDATES,
        description=f"candidates to return, best first; default all, or the best {FEW_ANSWERS} of what the model knows",
    )
    history: Annotated[list[TurnFields], Few, BeforeValidator(_few), BeforeValidator(_objects)] | None = Field(
        None, description="earlier turns, oldest first (JSON only; only models with `history` in /models)"
    )
    template: Annotated[Text, AfterValidator(with_one_place), Field(json_schema_extra={"pattern": r"\{\}"})] | None = (
        Field(None, description="of the prompt; {} is the question (only models with `template` in /models)")
    )

    @property
    def num_ranked(self) -> int:
        """Candidates scored for each question."""
        return min(self.rank_k or DEFAULT_RANK_K, len(self.candidates or ()))

    @property
    def num_returned(self) -> int:
        """Candidates returned for each question, at most."""
        return self.top_candidates or len(self.candidates or ()) or FEW_ANSWERS

    @property
    def generating(self) -> list[str]:
        """Those of the fields that are for writing an answer."""
        return sorted(self.model_fields_set & GenerationFields.model_fields.keys() - Fields.model_fields.keys())

    @property
    def turns(self) -> tuple[Turn, ...]:
        return tuple(Turn(turn.question, turn.answer) for turn in self.history or ())

    @model_validator(mode="after")
    def _ranked(self, info: ValidationInfo) -> Self:
        if self.candidates is None:
            if self.given("rank_k"):
                raise ValueError("rank_k: only with `candidates`")
            return self
        if generating := self.generating:
            raise ValueError(f"{', '.join(generating)}: not with `candidates`, which are ranked")
        check_pairs(len(self.question) * self.num_ranked, info)
        self._check_answer(self.candidates, context_of(info).settings.max_body_bytes)
        return self

    def _check_answer(self, candidates: list[str], max_chars: int) -> None:
        """Each question's answer lists the candidates: the size of all is bounded as that of a request body is."""
        questions, entries = len(self.question), min(self.num_returned, len(candidates))
        if questions * entries > MAX_RETURNED:
            raise ValueError(
                f"candidates: the answers would list {questions * entries}, at most {MAX_RETURNED} are allowed: ask "
                "for fewer with `top_candidates`"
            )
        if questions * sum(sorted(map(len, candidates))[-entries:]) > max_chars:
            raise ValueError(
                f"candidates: the answers would have more than {max_chars} characters: ask for fewer with "
                "`top_candidates`"
            )


Video = Annotated[
    bool,
    Field(
        description=f"the images, or the frames of one animated GIF or WebP, are one video of {VIDEO_FRAMES} frames at "
        "most (only models with `video` in /models)"
    ),
]


class MatchFields(Fields):
    text: Texts = Field(min_length=1, description="one text or a list")
    head: Literal["itm", "itc", "both", "lm"] | None = Field(
        None,
        description="which of the two scores; default: those of the model, `heads` in /models; lm: the likelihood of "
        "each text as a caption (only with `caption`)",
    )
    video: Video = False

    @model_validator(mode="after")
    def _bounded(self, info: ValidationInfo) -> Self:
        if self.video and self.head == "lm":
            raise ValueError("video: not with head lm")
        check_pairs(len(self.text) * (VIDEO_FRAMES if self.video else context_of(info).num_images), info)
        return self


class EmbedFields(Fields):
    num_images: ClassVar[tuple[int, int | None]] = (0, None)

    text: TextsOrNone = Field([], description="one text or a list")
    pooling: Literal["none", "mean"] | None = Field(
        None,
        description="of an image's vectors (itc: only models with several); ITC compares each vector, not the mean. "
        "In another space: of the tokens, or of BLIP-2's queries",
    )
    encoding: Literal["float", "base64"] = Field("float", description="numbers, or little-endian float32 in base64")
    space: Literal["itc", "image", "text", "multimodal"] = Field(
        "itc",
        description="itc: unit vectors, which ITC compares; else states before the projections, of images, of texts, "
        "or of pairs: image i with text i, or one of either with each of the others",
    )
    video: Video = False

    @model_validator(mode="after")
    def _fits_its_space(self, info: ValidationInfo) -> Self:
        num_images, num_texts = context_of(info).num_images, len(self.text)
        match self.space:
            case "itc" if not num_texts and not num_images:
                raise ValueError("at least one image or text is needed")
            case "image" if num_texts:
                raise ValueError("text: not with space image")
            case "text" if num_images:
                raise ValueError("image: not with space text")
            case "image" | "multimodal" if not num_images:
                raise ValueError(f"image: is missing, space {self.space} needs one")
            case "text" | "multimodal" if not num_texts:
                raise ValueError(f"text: is missing, space {self.space} needs one")
            case "multimodal" if 1 not in (num_images, num_texts) and num_images != num_texts:
                raise ValueError(f"text: {num_texts} for {num_images} images, but as many are needed, or one of either")
            case _ if self.video and not num_images:
                raise ValueError("video: needs an image")
            case space if self.video and space != "itc":
                raise ValueError("video: only with space itc")
        return self


class LocalizeFields(Fields):
    num_images: ClassVar[tuple[int, int | None]] = (1, 1)

    text: Text = Field(description="what to look for")
    layer: int | None = Field(
        None,
        ge=0,
        description="whose attention is looked at, of the text encoder's, from 0; the last has no gradient; default: "
        "`layer` in /models",
    )
    tokens: bool = Field(False, description="in JSON, the map of each token beside that of all")


def check_pairs(num_pairs: int, info: ValidationInfo) -> None:
    limit = context_of(info).settings.max_pairs
    if num_pairs > limit:
        raise ValueError(f"{num_pairs} pairs to score, at most {limit} are allowed")


def explain(errors: Iterable[Any]) -> str:
    """pydantic's errors in one line, without the values, which are the client's."""
    lines = [": ".join((*(str(part)[:64] for part in error["loc"][:3]), error["msg"])) for error in errors]
    return "; ".join(line.removeprefix("Value error, ").replace(": Value error, ", ": ") for line in lines[:5])
