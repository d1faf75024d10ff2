"""What a runner answers, and what of it is given back to one: features, and those of several pictures together."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]


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
