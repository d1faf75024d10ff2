"""A runner without weights, for tests and for measuring the service itself: it can be held or made to fail, and
records its device calls. Its answers are in answers.py."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from math import nan
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from models.base import (
    SPACES,
    Capabilities,
    Checkpoint,
    DeviceLostError,
    InputError,
    Item,
    Kept,
    Localizing,
    Op,
    ServedModel,
    Task,
)
from models.fake.answers import DIMENSIONS, generated, localized, pixels, scores
from models.framing import Framing
from models.inputs import (
    CaptionInput,
    GenerationSettings,
    ImageInput,
    Input,
    LocalizeInput,
    PairInput,
    Preprocessing,
    QuestionInput,
    RankInput,
    SegmentInput,
    TextInput,
)
from models.outputs import Features, Generated, Localized, Scores

MAX_PROMPT_WORDS = 64
MAX_TURNS = 8  # of a history
TEMPERATURE = 10.0
LOCALIZING = Localizing(num_layers=3, default=0)
ROW_BYTES = 1024  # of KV cache that a row claims to need
PREPROCESSING = Preprocessing(Framing(32), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

T = TypeVar("T")


class OutOfMemoryError(RuntimeError):
    """Named as in torch."""


class Fault(StrEnum):
    """What a device call can be made to do."""

    ERROR = "error"
    OOM = "oom"
    LOST = "lost"
    COUNT = "count"  # one output is missing
    NAN = "nan"


ERRORS: dict[Fault | None, type[RuntimeError]] = {
    Fault.ERROR: RuntimeError,
    Fault.OOM: OutOfMemoryError,
    Fault.LOST: DeviceLostError,
}


@dataclass(frozen=True, slots=True)
class Call:
    """One device call: `method` of the runner or of its generation, with all its rows."""

    method: str  # encode, score, localize, generate, admit, step, drop
    items: tuple[Item, ...]

    @property
    def payloads(self) -> list[Any]:
        return [item.payload for item in self.items]


class Hold:
    """Device calls wait here until they are let go."""

    def __init__(self) -> None:
        self._entered = threading.Semaphore(0)
        self._permits = threading.Semaphore(0)
        self._open = False

    def entered(self, timeout_seconds: float = 30.0) -> bool:
        """Wait for the next device call to arrive. Blocks: not for the event loop's thread."""
        return self._entered.acquire(timeout=timeout_seconds)

    def let_one_go(self) -> None:
        self._permits.release()

    def release(self) -> None:
        self._open = True
        self._permits.release()

    def wait(self) -> None:
        self._entered.release()
        self._permits.acquire()
        if self._open:
            self._permits.release()  # lets the next one go too


class FakeRunner:
    """A `ModelRunner` for towers and heads alike. The payload of its items is the request; of images, the pixels."""

    def __init__(self, unit: str = "fake", capabilities: Capabilities | None = None) -> None:
        self.unit = unit
        capabilities = capabilities or Capabilities(spaces=SPACES, video=True)
        self.capabilities = replace(capabilities, dimensions=DIMENSIONS, localizing=LOCALIZING)
        self.calls: deque[Call] = deque(maxlen=1000)
        self._hold: Hold | None = None
        self._fault: tuple[Fault, Callable[[Call], bool]] | None = None

    # --- for tests ---

    @contextmanager
    def held(self) -> Iterator[Hold]:
        """Within it, every device call waits."""
        self._hold = hold = Hold()
        try:
            yield hold
        finally:
            self._hold = None
            hold.release()

    def fail(self, fault: Fault, when: Callable[[Call], bool] = lambda _: True) -> None:
        """From now on, the device calls for which `when` is true fail."""
        self._fault = fault, when

    def heal(self) -> None:
        self._fault = None

    def sizes(self, *methods: str) -> list[int]:
        """How many items each call of `methods` had."""
        return [len(call.items) for call in self.calls if call.method in methods]

    def enter(self, method: str, items: Sequence[Item]) -> Fault | None:
        """Every device call starts here: recorded, held, failed. Returns the fault to put into the outputs."""
        call = Call(method, tuple(items))
        self.calls.append(call)
        hold = self._hold
        if hold is not None:
            hold.wait()
        fault = self._fault[0] if self._fault is not None and self._fault[1](call) else None
        if fault in ERRORS:
            raise ERRORS[fault](f"the fake was made to fail: {fault}")
        return fault

    # --- ModelRunner ---

    def keep_in(self, kept: Kept) -> None:
        """It makes nothing of an image that is worth it."""

    def prepare(self, request: Input) -> Item:
        kind = type(request).__name__
        match request:
            case ImageInput(image, preprocessing):
                assert isinstance(image, Image.Image)  # as its framing makes them
                return Item(Op.ENCODE, preprocessing.image_size, pixels(image))
            case CaptionInput(prompt, settings):
                if prompt is not None and len(prompt.split()) > MAX_PROMPT_WORDS:
                    raise InputError(f"the prompt has {len(prompt.split())} words; {MAX_PROMPT_WORDS} fit")
                words = len((prompt or "").split())
                return Item(Op.GENERATE, (kind, settings), request, cache_bytes=ROW_BYTES, num_prompt_tokens=words)
            case QuestionInput(question, settings=settings):
                return Item(
                    Op.GENERATE,
                    (kind, settings),
                    request,
                    history_used=self._history_used(request),
                    cache_bytes=ROW_BYTES,
                    num_prompt_tokens=len(question.split()),
                )
            case RankInput():
                return Item(Op.SCORE, kind, request, history_used=self._history_used(request))
            case PairInput(text) | TextInput(text) | SegmentInput(text):
                return Item(Op.SCORE, kind, request, num_prompt_tokens=len(text.split()))
            case LocalizeInput(layer=layer):
                if layer is not None and layer > LOCALIZING.num_layers - 2:
                    raise InputError(f"layer: must be 0 to {LOCALIZING.num_layers - 2}")
                return Item(Op.LOCALIZE, layer, request)
            case _:
                return Item(Op.SCORE, kind, request)

    def _history_used(self, request: QuestionInput | RankInput) -> int | None:
        return min(len(request.history), MAX_TURNS) if self.capabilities.history and request.history else None

    def encode(self, batch: Sequence[Item]) -> list[Features]:
        """Pixels `(4, 4, 3)` -> features `(16, 3)`: the pixels themselves, in 0..1."""
        fault = self.enter("encode", batch)
        features: list[Features] = [_spoiled(item.payload.reshape(-1, 3), fault) for item in batch]
        return _counted(features, fault)

    def score(self, batch: Sequence[Item]) -> list[Scores]:
        fault = self.enter("score", batch)
        return _counted([_spoiled(scores(item, self.capabilities), fault) for item in batch], fault)

    def localize(self, batch: Sequence[Item]) -> list[Localized]:
        fault = self.enter("localize", batch)
        outputs = [localized(item) for item in batch]
        return _counted([replace(one, maps=_spoiled(one.maps, fault)) for one in outputs], fault)

    def generate(self, batch: Sequence[Item]) -> FakeGeneration:
        self.enter("generate", batch)
        return FakeGeneration(self, batch)


class FakeGeneration:
    """One word a step for each row, the stop token last."""

    def __init__(self, runner: FakeRunner, batch: Sequence[Item]) -> None:
        self._runner = runner
        self._rows: dict[Item, tuple[int, Generated]] = {}  # steps left, and what will have been generated
        self._add(batch)

    def __len__(self) -> int:
        return len(self._rows)

    def admit(self, batch: Sequence[Item]) -> None:
        self._runner.enter("admit", batch)
        self._add(batch)

    def drop(self, item: Item) -> None:
        self._runner.enter("drop", [item])
        del self._rows[item]

    def step(self) -> list[tuple[Item, Generated]]:
        fault = self._runner.enter("step", list(self._rows))
        self._rows = {item: (left - 1, result) for item, (left, result) in self._rows.items()}
        finished = [(item, result) for item, (left, result) in self._rows.items() if left == 0]
        for item, (left, result) in self._rows.items():
            if item.tell is not None and left and _is_told(item.payload.settings):
                item.tell(_so_far(result, left))
        for item, _ in finished:
            del self._rows[item]
        if fault is Fault.NAN:
            finished = [(item, _without_confidence(result)) for item, result in finished]
        return _counted(finished, fault)

    def _add(self, batch: Sequence[Item]) -> None:
        for item in batch:
            result = generated(item)
            self._rows[item] = max(sequence.num_tokens for sequence in result.sequences), result


def _is_told(settings: GenerationSettings) -> bool:
    """As of real models: not while beams compete."""
    return settings.sampling is not None or settings.num_beams == 1


def _so_far(result: Generated, left: int) -> list[str]:
    """What is there `left` steps before the end."""
    steps = max(sequence.num_tokens for sequence in result.sequences) - left
    return [" ".join(sequence.text.split()[:steps]) for sequence in result.sequences]


def fake_models(tower: FakeRunner | None = None, heads: FakeRunner | None = None) -> list[ServedModel]:
    """One served model, `fake`, with every task: one checkpoint of one tower and one unit of heads."""
    checkpoint = Checkpoint(
        name="fake",
        revision=None,
        tower=tower or FakeRunner("fake-tower"),
        heads=heads or FakeRunner("fake-heads"),
        preprocessing=PREPROCESSING,
        dtype="fp32",
        device="cpu",
        temperature=TEMPERATURE,
        kernels={"tower": "onednn", "text": "fbgemm", "head": "onednn"},
    )
    return [ServedModel("fake", "fake", dict.fromkeys(Task, checkpoint), note="names colours; has no weights")]


def _counted(outputs: list[T], fault: Fault | None) -> list[T]:
    return outputs[:-1] if fault is Fault.COUNT else outputs


def _spoiled(output: Scores, fault: Fault | None) -> Scores:
    return np.full_like(output, nan) if fault is Fault.NAN else output


def _without_confidence(result: Generated) -> Generated:
    return replace(result, sequences=tuple(replace(sequence, confidence=nan) for sequence in result.sequences))
