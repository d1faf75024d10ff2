"""The fake keeps the protocol of `models.base`, answers sensibly, and does what tests tell it to."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.base import Capabilities, DeviceLostError, Generation, InputError, Item, ModelRunner, Task
from models.fake.runner import ERRORS, PREPROCESSING, FakeRunner, Fault, fake_models
from models.inputs import (
    CaptionInput,
    GenerationSettings,
    ImageEmbeddingInput,
    ImageInput,
    Input,
    PairInput,
    QuestionInput,
    RankInput,
    Sampling,
    TextInput,
    Turn,
)
from models.outputs import Generated, Scores, is_finite


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner("fake")


def look(runner: FakeRunner, request: Input, colour: str = "red") -> Item:
    """A prepared request about a picture of that colour."""
    picture = Image.new("RGB", (40, 30), colour)
    (features,) = runner.encode([runner.prepare(ImageInput(picture, PREPROCESSING))])
    return replace(runner.prepare(request), features=features)


def score(runner: FakeRunner, request: Input, colour: str = "red") -> Scores:
    return runner.score([look(runner, request, colour)])[0]


def finish(generation: Generation) -> list[Generated]:
    finished = []
    while len(generation):
        finished += generation.step()
    return [generated for _, generated in finished]


def say(runner: FakeRunner, request: Input, colour: str = "red") -> Generated:
    return finish(runner.generate([look(runner, request, colour)]))[0]


def test_it_is_a_runner(runner: FakeRunner) -> None:
    as_runner: ModelRunner = runner
    assert as_runner.unit == "fake"
    assert as_runner.capabilities.dimensions == 16


@pytest.mark.parametrize("colour", ["red", "green", "blue", "black", "yellow"])
def test_caption_names_the_colour(runner: FakeRunner, colour: str) -> None:
    (sequence,) = say(runner, CaptionInput(), colour).sequences
    assert sequence.text == f"a {colour} picture"
    assert sequence.num_tokens == 4
    assert sequence.confidence == pytest.approx(1, abs=0.01)


def test_sequences_come_best_first(runner: FakeRunner) -> None:
    sequences = say(runner, CaptionInput(settings=GenerationSettings(num_sequences=8))).sequences
    assert len({sequence.text for sequence in sequences}) == 8
    confidences = [sequence.confidence for sequence in sequences]
    assert confidences == sorted(confidences, reverse=True)


def test_sampling_is_repeatable_by_its_seed(runner: FakeRunner) -> None:
    def sample(seed: int) -> Generated:
        return say(runner, CaptionInput(settings=GenerationSettings(num_sequences=4, sampling=Sampling(seed=seed))))

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


@pytest.mark.parametrize(
    ("settings", "num_words", "num_tokens"), [((None, 6), 6, 7), ((2, None), 2, 2), ((9, 9), 9, 9)]
)
def test_length_is_as_long_as_wanted(
    runner: FakeRunner, settings: tuple[int | None, int | None], num_words: int, num_tokens: int
) -> None:
    longest, shortest = settings
    request = CaptionInput(settings=GenerationSettings(max_new_tokens=longest, min_new_tokens=shortest))
    (sequence,) = say(runner, request).sequences
    assert (len(sequence.text.split()), sequence.num_tokens) == (num_words, num_tokens)
    assert runner.sizes("step") == [1] * num_tokens


@pytest.mark.parametrize(
    ("question", "answer"),
    [("what color is it?", "blue"), ("is it blue?", "yes"), ("is it red?", "no"), ("how many?", "1")],
)
def test_questions_are_answered(runner: FakeRunner, question: str, answer: str) -> None:
    assert say(runner, QuestionInput(question), "blue").sequences[0].text == answer


def test_history_is_counted_where_it_can_be_used(runner: FakeRunner) -> None:
    talks = FakeRunner("talks", Capabilities(history=True))
    history = (Turn("a?", "b"),) * 20
    for request in (QuestionInput("is it red?", history), RankInput("is it red?", ("yes", "no"), 2, history)):
        assert runner.prepare(request).history_used is None
        assert talks.prepare(request).history_used == 8
    assert talks.prepare(QuestionInput("is it red?")).history_used is None


def test_match_tells_the_right_text(runner: FakeRunner) -> None:
    right, wrong = score(runner, PairInput("a red picture")), score(runner, PairInput("a blue picture"))
    assert right.shape == (2,)
    assert right[1] > right[0]
    assert wrong[1] < wrong[0]


def test_embeddings_have_length_one_and_match_by_cosine(runner: FakeRunner) -> None:
    image = score(runner, ImageEmbeddingInput())
    texts = [score(runner, TextInput(text)) for text in ("a red picture", "a blue picture", "no colour", "nothing")]
    for embedding in (image, *texts):
        assert embedding.shape == (1, 16)
        assert embedding.dtype == np.float32
        assert np.linalg.norm(embedding) == pytest.approx(1)
    red, blue, *others = [float((image @ text.T)[0, 0]) for text in texts]
    assert red > 0.8 > 0.2 > blue
    assert not np.array_equal(texts[2], texts[3])
    assert max(others) < red


def test_pooling(runner: FakeRunner) -> None:
    queries = FakeRunner("queries", Capabilities(pooling=("none", "mean")))
    assert score(queries, ImageEmbeddingInput("none")).shape == (4, 16)
    assert score(queries, ImageEmbeddingInput("mean")).shape == (1, 16)
    assert score(runner, ImageEmbeddingInput("none")).shape == (1, 16)


def test_candidates_are_ranked_and_only_the_best_k_count(runner: FakeRunner) -> None:
    candidates = ("blue", "red", "something", "orange")
    probabilities = score(runner, RankInput("what color?", candidates, k=2))
    assert probabilities.argmax() == 1
    assert (probabilities > 0).tolist() == [False, True, False, True]
    assert probabilities.sum() == pytest.approx(1)
    assert (score(runner, RankInput("what color?", candidates, k=128)) > 0).sum() >= 3


def test_prompt_that_does_not_fit_is_refused(runner: FakeRunner) -> None:
    with pytest.raises(InputError, match="100 words"):
        runner.prepare(CaptionInput("word " * 100))


def test_equal_inputs_get_equal_answers_in_every_batch(runner: FakeRunner) -> None:
    items = [look(runner, PairInput(f"text {number}")) for number in range(5)]
    alone = [runner.score([item])[0] for item in items]
    assert all(map(np.array_equal, runner.score(items), alone))


def test_rows_join_and_leave_a_generation(runner: FakeRunner) -> None:
    first, second, third = (look(runner, CaptionInput(str(number))) for number in range(3))
    generation = runner.generate([first, second])
    assert generation.step() == []
    generation.admit([third])
    generation.drop(first)
    assert len(generation) == 2
    left = [item for _ in range(4) for item, _ in generation.step()]
    assert left == [second, third]
    assert runner.sizes("generate", "admit", "drop", "step") == [2, 2, 1, 1, 2, 2, 2, 1]


# --- what tests tell it to do ---


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.OOM, Fault.LOST])
def test_calls_can_be_made_to_raise(runner: FakeRunner, fault: Fault) -> None:
    item = runner.prepare(TextInput("any"))
    runner.fail(fault, lambda call: "any" in [payload.text for payload in call.payloads])
    with pytest.raises(ERRORS[fault]):
        runner.score([item])
    assert runner.score([runner.prepare(TextInput("other"))])
    runner.heal()
    assert runner.score([item])
    assert issubclass(ERRORS[Fault.LOST], DeviceLostError)


@pytest.mark.parametrize(
    "run",
    [
        lambda runner: runner.score([runner.prepare(TextInput(text)) for text in "ab"]),
        lambda runner: runner.encode([look(runner, ImageInput(Image.new("RGB", (4, 4)), PREPROCESSING))] * 2),
        lambda runner: finish(runner.generate([look(FakeRunner(), CaptionInput(text)) for text in "ab"])),
    ],
)
def test_outputs_can_be_spoiled(run: Any) -> None:
    spoiled = FakeRunner()
    assert all(map(is_finite, run(spoiled)))
    spoiled.fail(Fault.NAN, lambda call: len(call.items) == 2)
    outputs = run(spoiled)
    assert not any(map(is_finite, outputs))
    spoiled.fail(Fault.COUNT, lambda call: len(call.items) == 2)
    assert len(run(spoiled)) == len(outputs) - 1


def test_infinite_numbers_are_not_finite() -> None:
    assert not is_finite(np.array([1, np.inf], np.float32))
    assert is_finite(np.array([1, 2], np.float32))


def test_calls_can_be_held_and_let_go_one_by_one(runner: FakeRunner) -> None:
    item = runner.prepare(TextInput("any"))
    done: list[int] = []

    def work() -> None:
        for number in range(3):
            runner.score([item])
            done.append(number)

    thread = threading.Thread(target=work)
    with runner.held() as hold:
        thread.start()
        assert hold.entered()
        assert done == []
        hold.let_one_go()
        assert hold.entered()
        assert done == [0]
    thread.join(30)
    assert done == [0, 1, 2]


def test_served_model_has_every_task() -> None:
    (model,) = fake_models(heads=(heads := FakeRunner("mine")))
    assert set(model.checkpoints) == set(Task)
    assert all(checkpoint.heads is heads for checkpoint in model.checkpoints.values())
    assert len({checkpoint.tower.unit for checkpoint in model.checkpoints.values()} | {heads.unit}) == 2
