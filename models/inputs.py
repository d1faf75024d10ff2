"""What a task asks of a runner."""

from __future__ import annotations

from dataclasses import dataclass

from models.framing import Fit, Frame, Framing
from models.outputs import Scores


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a checkpoint's pixels are made: a square picture, then `(value / 255 - mean) / std` by channel."""

    framing: Framing
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def image_size(self) -> int:
        """Pixels of a side of the square, or of the shorter side."""
        return self.framing.resized if self.framing.fit is Fit.WHOLE else self.framing.side

    def extent(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of what the tower sees, in pixels of a picture of this size."""
        longer = max(size)
        return (longer, longer) if self.framing.fit is Fit.PAD else size


@dataclass(frozen=True, slots=True)
class ImageInput:
    """encode: one RGB image, of whatever size; `is_framed`: already what the preprocessing's framing makes of it."""

    image: Frame
    preprocessing: Preprocessing
    is_framed: bool = False


@dataclass(frozen=True, slots=True)
class Sampling:
    top_p: float = 0.9
    top_k: int = 50
    temperature: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How to generate. None: as the model's authors do."""

    num_sequences: int = 1
    num_beams: int | None = None
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    length_penalty: float | None = None
    repetition_penalty: float | None = None
    sampling: Sampling | None = None  # None: beam search


@dataclass(frozen=True, slots=True)
class CaptionInput:
    """generate: a caption that continues `prompt`; None: the authors' prompt; "": no prompt."""

    prompt: str | None = None
    settings: GenerationSettings = GenerationSettings()


@dataclass(frozen=True, slots=True)
class Turn:
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class QuestionInput:
    """generate: the answer to a question about the image."""

    question: str
    history: tuple[Turn, ...] = ()
    template: str | None = None
    settings: GenerationSettings = GenerationSettings()


@dataclass(frozen=True, slots=True)
class RankInput:
    """score: the probability of each candidate answer, `(candidates,)`. Only the `k` whose first token is likeliest are
    scored; the others get 0. No candidates: of all answers that it chooses among, if it does."""

    question: str
    candidates: tuple[str, ...]
    k: int
    history: tuple[Turn, ...] = ()
    template: str | None = None


@dataclass(frozen=True, slots=True)
class PairInput:
    """score: the ITM logits `(2,)` = [no match, match] of the image and `text`."""

    text: str


@dataclass(frozen=True, slots=True)
class TextInput:
    """score: the ITC embedding of `text`, a unit vector `(1, dimensions)`."""

    text: str


@dataclass(frozen=True, slots=True)
class ImageEmbeddingInput:
    """score: the ITC embedding of the image, unit vectors `(vectors, dimensions)`."""

    pooling: str = "none"


@dataclass(frozen=True, slots=True)
class StatesInput:
    """score: hidden states before the projections, `(vectors, width)`, not normalised: the authors'
    `extract_features`.

    BLIP has one vector, of the first token; BLIP-2's images, alone or with a text, have one for each query. `mean`: the
    mean of all tokens or queries. `text`: for the spaces text and multimodal."""

    space: str
    text: str | None = None
    pooling: str = "none"


@dataclass(frozen=True, slots=True)
class LikelihoodInput:
    """score: the mean log-probability `(1,)` of the tokens of a given caption, stop token included, after the authors'
    prompt: the logarithm of the confidence that it would have as a generated one."""

    text: str


@dataclass(frozen=True, slots=True)
class LocalizeInput:
    """localize: where in the image each token of `text` is, by the cross-attention of `layer` (from 0; None: the
    default)."""

    text: str
    layer: int | None = None


@dataclass(frozen=True, slots=True)
class SegmentInput:
    """score: how likely each part of the image is what `text` names: `(rows, columns)` in 0..1, over the whole of what
    the tower saw."""

    text: str


@dataclass(frozen=True, slots=True)
class ExampleInput:
    """score: what the image shows as a whole, as a query `(dimensions,)` for `DetectInput`."""


@dataclass(frozen=True, slots=True, eq=False)
class DetectInput:
    """score: of each place where something may be, `(places, 5)`: how likely it is what is looked for, in 0..1, and its
    box, left, top, right and bottom, as shares of the sides of what the tower saw. The boxes are the same whatever is
    looked for."""

    query: str | Scores  # a text, or what an `ExampleInput` gave


Input = (
    ImageInput
    | CaptionInput
    | QuestionInput
    | RankInput
    | PairInput
    | TextInput
    | ImageEmbeddingInput
    | StatesInput
    | LikelihoodInput
    | LocalizeInput
    | SegmentInput
    | ExampleInput
    | DetectInput
)
