"""Promise 1, batched equals alone, for one-pass work; and what half precision costs."""

from __future__ import annotations

import numpy as np
import pytest

from models.base import Checkpoint, InputError, ServedModel, Task
from models.inputs import ImageEmbeddingInput, Input, PairInput, QuestionInput, RankInput, TextInput
from models.loader import load
from models.runners.text import WordPiece
from tests import golden
from tests.models import asking

IMAGES = ("s0_ev0", "s1_ev1", "s3_china_160x120")
TEXTS = ("red", "a small gray triangle", "there is a blue circle , and it is near the bottom left of the picture")
PAIRS = [(image, PairInput(text)) for image in IMAGES for text in TEXTS]
CASES = {
    "pairs": PAIRS,
    "pairs, unevenly many for each image": [PAIRS[index] for index in (0, 4, 1, 8, 2)],
    "texts": [(IMAGES[0], TextInput(text)) for text in TEXTS],
    "images": [(image, ImageEmbeddingInput()) for image in IMAGES],
}


MODELS = ("blip", "opt", "t5")


@pytest.fixture(scope="module")
def every(served: dict[str, ServedModel], served2: dict[str, ServedModel]) -> dict[str, ServedModel]:
    return served | served2


def together_and_alone(checkpoint: Checkpoint, requests: list[tuple[str, Input]]) -> tuple[list[float], list[float]]:
    items = [asking.item(checkpoint, image, request) for image, request in requests]
    assert len({item.key for item in items}) == 1
    return asking.score(checkpoint, items), [asking.score(checkpoint, [item])[0] for item in items]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("requests", CASES.values(), ids=CASES)
def test_a_batch_of_scores_equals_each_alone(
    every: dict[str, ServedModel], model: str, requests: list[tuple[str, Input]]
) -> None:
    together, alone = together_and_alone(every[model].checkpoints[Task.MATCH], requests)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.ptp(alone, axis=0).max() > 0.01


def test_an_image_of_many_vectors_can_have_one(served2: dict[str, ServedModel]) -> None:
    checkpoint = served2["opt"].checkpoints[Task.MATCH]
    requests = [ImageEmbeddingInput(pooling) for pooling in checkpoint.heads.capabilities.pooling]
    several, mean = asking.score(checkpoint, [asking.item(checkpoint, IMAGES[0], request) for request in requests])
    dimensions = checkpoint.heads.capabilities.dimensions
    assert (several.shape, mean.shape) == ((8, dimensions), (1, dimensions))
    for vectors in (several, mean):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_ranked_candidates_of_many_lengths(every: dict[str, ServedModel], model: str) -> None:
    """In several passes: the order in which they come, and who else is there, does not matter."""
    checkpoint = every[model].checkpoints[Task.VQA]
    words = ("red", "a red circle", "a small blue triangle at the bottom left", "circle")
    candidates = tuple(f"{word} {more}".strip() for more in range(60) for word in words)
    one, other = (
        asking.score(checkpoint, [asking.item(checkpoint, IMAGES[0], RankInput("what is it?", order, 500))])[0]
        for order in (candidates, candidates[::-1])
    )
    assert one.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(one, other[::-1], atol=1e-6)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_stays_close(served: dict[str, ServedModel], dtype: str) -> None:
    (half, _) = load("golden", catalog=golden.CATALOG, device="cpu", dtype=dtype, threads=1)
    logits, exact = (
        asking.score(
            model.checkpoints[Task.MATCH], [asking.item(model.checkpoints[Task.MATCH], *pair) for pair in PAIRS]
        )
        for model in (half, served["blip"])
    )
    np.testing.assert_allclose(logits, exact, atol=0.05)


def test_a_caption_may_go_on_with_the_last_word_of_its_prompt() -> None:
    tokenizer = WordPiece(golden.BLIP / "checkpoints" / "caption")
    (_, *pieces, _) = tokenizer.ids("redish")
    assert tokenizer.text(pieces) == "redish"
    assert tokenizer.text(pieces[1:]) == "ish"


@pytest.mark.parametrize("text", ["\u200b", "\x00", "\x01 \x02"])
def test_text_without_a_token_is_refused(served: dict[str, ServedModel], text: str) -> None:
    heads = {task: checkpoint.heads for task, checkpoint in served["blip"].checkpoints.items()}
    for task, request in (
        (Task.VQA, QuestionInput(text)),
        (Task.VQA, RankInput("what is it?", ("red", text), 2)),
        (Task.MATCH, PairInput(text)),
        (Task.MATCH, TextInput(text)),
    ):
        with pytest.raises(InputError, match="no character that the model reads"):
            heads[task].prepare(request)


def test_candidates_are_tokenised_once_for_all_questions(served: dict[str, ServedModel]) -> None:
    heads, candidates = served["blip"].checkpoints[Task.VQA].heads, tuple(f"answer {n}" for n in range(50))
    first, second = (heads.prepare(RankInput(f"is it {n}?", candidates, 3)).payload for n in range(2))
    assert first.how.candidates is second.how.candidates
    assert first.ids != second.ids


def test_a_candidate_that_is_too_long_is_refused(served: dict[str, ServedModel]) -> None:
    heads = served["blip"].checkpoints[Task.VQA].heads
    with pytest.raises(InputError, match="candidate: has 42 tokens, at most 35"):
        heads.prepare(RankInput("what is it?", ("red", "red " * 40), 2))
