"""What heads made of an image serves the next that is asked about it: same answers, and counted as it is held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from app.engine.kept import KeptCache
from app.metrics import Metrics
from models.base import Checkpoint, Item, Op, ServedModel, Task
from models.inputs import (
    CaptionInput,
    GenerationSettings,
    ImageEmbeddingInput,
    Input,
    LikelihoodInput,
    PairInput,
    QuestionInput,
    RankInput,
)
from models.loader import load
from models.outputs import Video
from models.runners.unit import stored_bytes
from tests import golden
from tests.models import asking

IMAGES = ("s0_ev0", "s1_ev1", "s3_china_160x120")
BEAMS = GenerationSettings(num_beams=3, max_new_tokens=4)
GREEDY = GenerationSettings(num_beams=1, max_new_tokens=4)
RANKED = RankInput("what shape is it?", ("circle", "square", "triangle"), 2)
ASKED: dict[str, tuple[str, Task, tuple[Input, ...]]] = {
    "caption": ("blip", Task.CAPTION, (CaptionInput(settings=BEAMS), CaptionInput("a", GREEDY))),
    "likelihood": ("blip", Task.CAPTION, (LikelihoodInput("a red circle"), LikelihoodInput("blue"))),
    "question": (
        "blip",
        Task.VQA,
        (QuestionInput("what is it?", settings=BEAMS), QuestionInput("red?", settings=BEAMS)),
    ),
    "ranked": ("blip", Task.VQA, (RANKED,)),
    "pair": ("blip", Task.MATCH, (PairInput("red"), PairInput("a small gray triangle"))),
    "opt": ("opt", Task.CAPTION, (CaptionInput(settings=BEAMS), CaptionInput("a", GREEDY))),
    "t5": ("t5", Task.VQA, (QuestionInput("what is it?", settings=BEAMS), QuestionInput("red?", settings=GREEDY))),
    "pair of queries": ("opt", Task.MATCH, (PairInput("red"), PairInput("a small gray triangle"))),
    "queries": ("opt", Task.MATCH, (ImageEmbeddingInput(),)),
}


class Projections:
    """How many images' keys and values, or queries, were made."""

    def __init__(self, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        norm = asking.network(checkpoint).norm
        forward = norm.forward

        def counted(x: torch.Tensor) -> torch.Tensor:
            self.count += len(x)
            return forward(x)

        monkeypatch.setattr(norm, "forward", counted)


def answers(checkpoint: Checkpoint, items: Sequence[Item]) -> Any:
    if items[0].op is Op.SCORE:
        return [np.asarray(one).ravel() for one in asking.score(checkpoint, items)]
    generated = asking.generate(checkpoint, items)
    assert all(one.sequences[0].text for one in generated)
    return [[one.sequences[0].confidence, *map(ord, one.sequences[0].text)] for one in generated]


def assert_same(now: Any, before: Any) -> None:
    for one, other in zip(now, before, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def keeping(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, max_bytes: int = 2**30) -> KeptCache:
    kept = KeptCache(max_bytes, Metrics())
    monkeypatch.setattr(checkpoint.heads, "_kept", kept)
    return kept


def held(kept: KeptCache) -> int:
    return sum(stored_bytes(entry.made) for entry in kept._entries.values())


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_the_next_answer_is_made_of_what_is_kept_and_is_the_same(
    served: dict[str, ServedModel],
    served2: dict[str, ServedModel],
    asked: tuple[str, Task, tuple[Input, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, task, requests = asked
    checkpoint = (served | served2)[model].checkpoints[task]
    items = [asking.item(checkpoint, image, one) for image in IMAGES for one in requests]
    alone = [answers(checkpoint, [item])[0] for item in items]
    kept, made = keeping(checkpoint, monkeypatch), Projections(checkpoint, monkeypatch)
    num_requests = len(requests)
    batched = items[0].key == items[-1].key and not isinstance(requests[0], RankInput)

    # One image alone; then all, of which one is known; then all again.
    assert_same(answers(checkpoint, items[:1]), alone[:1])
    assert made.count == 1
    parts = [items] if batched else [[item] for item in items]
    for _ in range(2):
        now = [one for part in parts for one in answers(checkpoint, part)]
        assert_same(now, alone)
        assert made.count == len(IMAGES)
    assert kept.bytes == held(kept) > 0
    assert len(alone) == num_requests * len(IMAGES)


def test_beams_and_samples_share_what_is_kept_and_leave_it_as_it_was(
    served: dict[str, ServedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = served["blip"].checkpoints[Task.CAPTION]
    kept = keeping(checkpoint, monkeypatch)
    items = [asking.item(checkpoint, IMAGES[0], CaptionInput(settings=settings)) for settings in (GREEDY, BEAMS, BEAMS)]
    before = answers(checkpoint, items[1:2])
    [entry] = kept._entries.values()
    known = [tensor.clone() for layer in entry.made for tensor in layer]
    assert_same([answers(checkpoint, items)[place] for place in (1, 2)], before * 2)
    assert all(
        torch.equal(tensor, other)
        for tensor, other in zip([tensor for layer in entry.made for tensor in layer], known, strict=True)
    )


def test_what_was_dropped_is_made_again(served: dict[str, ServedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = served["blip"].checkpoints[Task.VQA]
    items = [asking.item(checkpoint, image, QuestionInput("what is it?", settings=BEAMS)) for image in IMAGES[:2]]
    alone = [answers(checkpoint, [item])[0] for item in items]
    one = keeping(checkpoint, monkeypatch)
    answers(checkpoint, items[:1])
    kept, made = keeping(checkpoint, monkeypatch, max_bytes=one.bytes), Projections(checkpoint, monkeypatch)
    for number in (0, 1, 0):
        assert_same(answers(checkpoint, [items[number]]), [alone[number]])
    assert made.count == 3
    assert kept.bytes == held(kept) == one.bytes


def test_of_a_batch_each_image_holds_its_own(served: dict[str, ServedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    """A view would hold what was made of all of them, for as long as one of them is kept."""
    checkpoint = served["blip"].checkpoints[Task.MATCH]
    kept = keeping(checkpoint, monkeypatch)
    asking.score(checkpoint, [asking.item(checkpoint, image, PairInput("red")) for image in IMAGES])
    sizes = [stored_bytes(entry.made) for entry in kept._entries.values()]
    assert sizes == [entry.num_bytes for entry in kept._entries.values()]
    assert kept.bytes == sum(sizes)
    assert len(sizes) == len(IMAGES)


def test_of_a_video_nothing_is_kept(served: dict[str, ServedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = served["blip"].checkpoints[Task.MATCH]
    kept = keeping(checkpoint, monkeypatch)
    frames = tuple(asking.features(checkpoint, image) for image in IMAGES)
    asking.score(checkpoint, [replace(checkpoint.heads.prepare(PairInput("red")), features=Video(frames))])
    assert kept.bytes == 0


def test_views_hold_their_storages() -> None:
    whole = torch.zeros(4, 8)
    assert stored_bytes([whole[:1]]) == stored_bytes([whole[:1], whole[2:]]) == whole.nbytes
    assert stored_bytes([whole[:1].clone(), torch.zeros(2)]) == 8 * 4 + 2 * 4


def test_where_products_are_in_int8_it_is_kept_in_half(monkeypatch: pytest.MonkeyPatch) -> None:
    (model, *_) = load("golden", catalog=golden.CATALOG, device="cpu", dtype="int8", threads=1)
    for task, asked in ((Task.CAPTION, CaptionInput("", BEAMS)), (Task.MATCH, PairInput("red"))):
        checkpoint = model.checkpoints[task]
        item = asking.item(checkpoint, IMAGES[0], asked)
        kept = keeping(checkpoint, monkeypatch)
        first, again = answers(checkpoint, [item]), answers(checkpoint, [item])
        assert_same(again, first)
        [entry] = kept._entries.values()
        assert {part.dtype for layer in entry.made for part in layer} <= {torch.float16, torch.bfloat16}
        assert entry.num_bytes == stored_bytes(entry.made)
        keeping(checkpoint, monkeypatch)
        monkeypatch.setattr(checkpoint.heads, "_exact", torch.float32)
        exact = answers(checkpoint, [item])
        # What was rounded may come to the next of 64 levels, where the CPU has no VNNI.
        np.testing.assert_allclose(first[0][:2], exact[0][:2], atol=2e-2)
