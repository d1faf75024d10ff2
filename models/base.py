"""What the service and the models say to each other: inputs, outputs, and the runner that turns one into the other."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class Task(StrEnum):
    """What a client asks for."""

    CAPTION = "caption"
    VQA = "vqa"
    MATCH = "match"
    EMBED = "embed"


class Op(StrEnum):
    """One kind of device work."""

    ENCODE = "encode"  # pixels -> features
    SCORE = "score"  # one forward pass: ITM, ITC, text embedding, ranked candidates
    GENERATE = "generate"  # token by token


class InputError(ValueError):
    """The input cannot be served, by its sender's doing; the message tells them why."""


class DeviceLostError(RuntimeError):
    """The device will not work again in this process."""


# --- inputs: what a task asks of a runner ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a checkpoint wants its pixels: `(value / 255 - mean) / std` of a bicubic square resize."""

    image_size: int  # pixels
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ImageInput:
    """encode: one RGB image."""

    image: Image.Image
    preprocessing: Preprocessing


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
    """generate: a caption that continues `prompt`; None: the authors' prompt, "": none."""

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
    """score: the probability of each candidate answer, `(candidates,)`; 0 beyond the best `k` by first token."""

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
    """score: the ITC embedding of `text`, `(1, dimensions)`, of length 1."""

    text: str


@dataclass(frozen=True, slots=True)
class ImageEmbeddingInput:
    """score: the ITC embedding of the image, `(vectors, dimensions)`, each of length 1."""

    pooling: str = "none"


Input = ImageInput | CaptionInput | QuestionInput | RankInput | PairInput | TextInput | ImageEmbeddingInput


# --- outputs --------------------------------------------------------------------------------------------------------


class Features(Protocol):
    """What a tower yields for one image, before the final norm: a tensor `(tokens, width)` on the runner's device."""

    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class GeneratedSequence:
    text: str
    confidence: float  # exp(mean log-probability of the generated tokens, stop token included), in (0, 1]
    num_tokens: int  # generated, stop token included


@dataclass(frozen=True, slots=True)
class Generated:
    """`num_sequences` sequences, best first (sampling: as drawn)."""

    sequences: tuple[GeneratedSequence, ...]


Scores = NDArray[np.float32]
Output = Features | Scores | Generated


def is_finite(output: Output) -> bool:
    """Whether no number of an output is NaN or infinite."""
    if isinstance(output, Generated):
        return all(isfinite(sequence.confidence) for sequence in output.sequences)
    values: Any = output  # an array or a tensor: only of finite numbers is the difference to themselves zero
    with np.errstate(invalid="ignore"):
        return bool((values - values == 0).all())


# --- the runner -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A prepared input. Items with equal `key`s, of one runner and op, can share a batch."""

    op: Op
    key: Hashable
    payload: Any  # the runner's own: token ids, pixels, resolved settings
    features: Features | None = None  # of the image, for every op but encode and text
    history_used: int | None = None  # turns of the history that fitted; None: none was given
    cache_bytes: int = 0  # at most, of its row in a generation


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a runner's inputs may hold, as data, so that no route learns a family."""

    history: bool = False
    template: bool = False
    pooling: tuple[str, ...] = ()  # empty: an image has one vector
    dimensions: int | None = None  # of the embeddings


class Generation(Protocol):
    """The running rows of one key. Each step gives every row its next token. If a method raises, it is thrown away."""

    def __len__(self) -> int:
        """The number of rows still running."""

    def step(self) -> list[tuple[Item, Generated]]:
        """Give each row one token; returns the rows that finished, which have left."""

    def admit(self, batch: Sequence[Item]) -> None:
        """Let further items of the same key join at the next token."""

    def drop(self, item: Item) -> None:
        """Let a row leave unfinished. Not called for the last rows: then the generation is thrown away."""


class ModelRunner(Protocol):
    """One unit: a tower or a checkpoint's heads. `prepare` runs on CPU threads, all else on the device thread."""

    @property
    def unit(self) -> str:
        """A name for metrics and logs, unique in the process."""

    @property
    def capabilities(self) -> Capabilities: ...

    def prepare(self, request: Input) -> Item:
        """Tokenise or preprocess. Raises InputError."""

    def encode(self, batch: Sequence[Item]) -> list[Features]:
        """As many features as items, in order; each with memory of its own, for it is kept alone."""

    def score(self, batch: Sequence[Item]) -> list[Scores]:
        """As many results as items, in order."""

    def generate(self, batch: Sequence[Item]) -> Generation:
        """Begin to generate; nothing is lost if it raises."""


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


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A name clients use, with a checkpoint for each task it has."""

    name: str
    family: str
    checkpoints: Mapping[Task, Checkpoint]
    note: str | None = None  # what its users must know, such as "knows coloured shapes, not photos"
    template: str | None = None  # the operator's, for questions; None: the authors'
