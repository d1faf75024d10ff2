"""Asking runners without an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from torch import Tensor

from models.base import Checkpoint, Item, Op
from models.inputs import ImageInput, Input
from models.outputs import Generated, is_finite
from tests import golden


@cache
def features(checkpoint: Checkpoint, image: str) -> Any:
    item = checkpoint.tower.prepare(ImageInput(golden.image(image), checkpoint.preprocessing))
    return checkpoint.tower.encode([item])[0]


def item(checkpoint: Checkpoint, image: str, request: Input) -> Item:
    return replace(checkpoint.heads.prepare(request), features=features(checkpoint, image))


def generate(checkpoint: Checkpoint, items: Sequence[Item]) -> list[Generated]:
    """All items in one batch, the answers in their order."""
    generation = checkpoint.heads.generate(items)
    answers: dict[Item, Generated] = {}
    while len(generation):
        answers |= dict(generation.step())
    return [answers[item] for item in items]


def score(checkpoint: Checkpoint, items: Sequence[Item]) -> list[Any]:
    return checkpoint.heads.score(items)


def network(checkpoint: Checkpoint) -> Any:
    """Below the protocol: the network itself."""
    return checkpoint.heads.network  # type: ignore[attr-defined]


def states(checkpoint: Checkpoint, image: str) -> Tensor:
    """What the heads look at, `(1, tokens, width)`, after the final norm."""
    return network(checkpoint).norm(features(checkpoint, image)[None])


def is_answered(checkpoint: Checkpoint, image: str, prepared: Item) -> bool:
    """Whether the answer to a prepared request about an image is finite."""
    asked = replace(prepared, features=features(checkpoint, image))
    (answer,) = (score if asked.op is Op.SCORE else generate)(checkpoint, [asked])
    return is_finite(answer)
