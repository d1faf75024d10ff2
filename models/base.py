"""The seam between service and models: the runner, which turns inputs into outputs, and what is served."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from models.inputs import Input, Preprocessing
from models.outputs import Features, Generated, Localized, Scores, Video


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
