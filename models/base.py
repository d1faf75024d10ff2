"""The seam between service and models: inputs, outputs, and the runner that turns one into the other."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.framing import Fit, Frame, Framing


class Task(StrEnum):
    """What a client asks for."""

    CAPTION = "caption"
    VQA = "vqa"
    MATCH = "match"
    EMBED = "embed"
    CAPFILT = "capfilt"
    LOCALIZE = "localize"
    SEGMENT = "segment"
    DETECT = "detect"


class Op(StrEnum):
    """One kind of device work."""

    ENCODE = "encode"  # pixels -> features
    SCORE = "score"  # one forward pass: ITM, ITC, text embedding, ranked candidates, masks, boxes
    GENERATE = "generate"  # token by token
    LOCALIZE = "localize"  # forward, and back to the attention: where in the picture a text is


class InputError(ValueError):
    """The input cannot be served; the message tells its sender why."""


class DeviceLostError(RuntimeError):
    """The device will not work again in this process."""


Scores = NDArray[np.float32]

# --- inputs: what a task asks of a runner ---------------------------------------------------------------------------


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


# --- outputs --------------------------------------------------------------------------------------------------------


class Features(Protocol):
    """A tower's output for one image, before the final norm: a tensor `(tokens, width)` on the runner's device."""

    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """The features of its frames, in order."""

    frames: tuple[Features, ...]

    @property
    def nbytes(self) -> int:
        return sum(frame.nbytes for frame in self.frames)


@dataclass(frozen=True, slots=True)
class GeneratedSequence:
    text: str
    confidence: float  # exp(mean log-probability of the generated tokens, stop token included), in (0, 1]
    num_tokens: int  # generated, stop token included
    is_cut: bool = False  # the limit of tokens ended it, not the stop token


@dataclass(frozen=True, slots=True)
class Generated:
    """`num_sequences` sequences, best first (sampling: as drawn)."""

    sequences: tuple[GeneratedSequence, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Localized:
    """Where the tokens of a text are: for each, the heat of every patch of the picture, at least 0."""

    tokens: tuple[str, ...]  # without those that are special
    maps: Scores  # (tokens, rows, columns)
    logits: Scores  # (2,), of ITM


Output = Features | Scores | Generated | Localized


def is_finite(output: Output) -> bool:
    """Whether no number of an output is NaN or infinite."""
    if isinstance(output, Localized):
        return is_finite(output.maps) and is_finite(output.logits)
    if isinstance(output, Generated):
        return all(isfinite(sequence.confidence) for sequence in output.sequences)
    values: Any = output  # an array or a tensor; x - x is 0 only where x is finite
    with np.errstate(invalid="ignore"):
        return bool((values - values == 0).all())


# --- the runner -----------------------------------------------------------------------------------------------------


Tell = Callable[[Sequence[str]], None]
"""Is told, on the device thread, what an unfinished row has generated so far: of each sequence the part that no further
token changes, so that it begins the final text. The whole each time, as a row that is retried starts again."""


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A prepared input. Items with equal `shape`s, of one runner and op, can share a batch."""

    op: Op
    key: Hashable
    payload: Any  # the runner's own: token ids, pixels, resolved settings
    features: Features | None = None  # of the image, or a `Video`; None for encode, and for text alone
    history_used: int | None = None  # turns of the history that fit; None: no history was given
    cache_bytes: int = 0  # upper bound of its KV cache in a generation
    num_new_tokens: int = 0  # that it generates, at most
    num_prompt_tokens: int = 0  # what is read before it generates, or scored
    tell: Tell | None = None  # of a generation; where beams compete there is nothing to tell before the end
    asked: Hashable = None  # what it was made of, to those who ask how long such items take

    @property
    def shape(self) -> Hashable:
        """Its key; of a video also how many frames it has."""
        return (self.key, len(self.features.frames)) if isinstance(self.features, Video) else self.key


SPACES = ("itc", "image", "text", "multimodal")  # those of BLIP and BLIP-2
HEADS = ("itm", "itc")


@dataclass(frozen=True, slots=True)
class Localizing:
    """The layers that a text can be localised at: 0 to `num_layers` - 2, as the last one has no gradient."""

    num_layers: int
    default: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a runner accepts, as data, so that no route knows a family."""

    heads: tuple[str, ...] = HEADS  # by which it matches, if it does
    history: bool = False
    template: bool = False
    pooling: tuple[str, ...] = ()  # the choices; empty: an image has a single vector
    dimensions: int | None = None  # of the embeddings
    spaces: tuple[str, ...] = ("itc",)  # in which it embeds: see `StatesInput`
    video: bool = False  # whether ITM and ITC take a `Video`
    localizing: Localizing | None = None  # None: it does not localise
    logit_scale: float | None = None  # what its weights say that cosines are multiplied by; None: nothing
    logit_bias: float | None = None  # added to them: each is a probability by itself, no softmax; None: there is one
    answers: tuple[str, ...] = ()  # to questions: it chooses among them; empty: it writes its own
    enough_images: int | None = None  # that a step's rows are about: more gain little; None: the more the better
    keeps: bool = False  # something of each image, see `Kept`
    num_images: int = 1  # that a question is about: more than one are a `Video`
    lacks: Mapping[Task, str] = field(default_factory=dict)  # why it has not a task that others of its kind have


class Kept(Protocol):
    """Where runners leave what they make of an image, for the next that is asked about it. For the device thread."""

    def get(self, unit: str, features: Features) -> Any | None:
        """What this unit made of an image with these features, if it is still there."""

    def keep(self, unit: str, features: Features, num_bytes: int, made: Any) -> None:
        """Keep it, if so many bytes fit: all that it holds."""


class Generation(Protocol):
    """The running rows of one key; each step gives every row its next token. If a method raises, the generation is
    discarded."""

    def __len__(self) -> int:
        """The number of rows still running."""

    def step(self) -> list[tuple[Item, Generated]]:
        """Give each row one token. Returns the rows that finished, and removes them."""

    def admit(self, batch: Sequence[Item]) -> None:
        """Let further items of the same key join at the next token."""

    def drop(self, item: Item) -> None:
        """Remove an unfinished row. Where no row would be left, the generation is discarded instead."""


class ModelRunner(Protocol):
    """One unit: a tower or a checkpoint's heads. `prepare` runs on CPU threads, the rest on the device thread."""

    @property
    def unit(self) -> str:
        """A name for metrics and logs, unique in the process."""

    @property
    def capabilities(self) -> Capabilities: ...

    def keep_in(self, kept: Kept) -> None:
        """From now on, what it makes of images may be kept there. Called before it serves."""

    def prepare(self, request: Input) -> Item:
        """Tokenise or preprocess. Raises InputError."""

    def encode(self, batch: Sequence[Item]) -> list[Features]:
        """The features of each item, in order. Each owns its memory, because it is cached on its own."""

    def score(self, batch: Sequence[Item]) -> list[Scores]:
        """The result of each item, in order."""

    def generate(self, batch: Sequence[Item]) -> Generation:
        """Start a generation of the items; if it raises, nothing has started."""

    def localize(self, batch: Sequence[Item]) -> list[Localized]:
        """The result of each item, in order."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A loaded checkpoint: its heads, the tower that feeds them, and where it came from."""

    name: str  # its hub repository, or the end of its folder's path
    revision: str | None
    tower: ModelRunner
    heads: ModelRunner
    preprocessing: Preprocessing
    dtype: str
    device: str
    temperature: float | None = None  # multiplies cosines before they become probabilities; None: it has no ITC
    kernels: Mapping[str, str] = field(default_factory=dict)  # of its matrix products on a CPU, by what they are for


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as clients name it, with a checkpoint for each of its tasks."""

    name: str
    family: str
    checkpoints: Mapping[Task, Checkpoint]
    note: str | None = None  # what its users must know, such as "knows coloured shapes, not photos"
    template: str | None = None  # the operator's, for questions; None: the authors'


def lacking(models: Iterable[ServedModel], task: Task) -> str:
    """What is told to who asks these models for a task that none of them has."""
    every = [checkpoint.heads.capabilities for model in models for checkpoint in model.checkpoints.values()]
    reasons = dict.fromkeys(one.lacks[task] for one in every if task in one.lacks)
    return ": ".join((f"does not have the task {task}", *filter(None, ["; ".join(reasons)])))
