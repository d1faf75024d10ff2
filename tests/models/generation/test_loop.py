"""Promise 1, batched equals alone, for generation: whatever else is in the batch, joins or leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from models.base import Checkpoint, Item, Op, ServedModel, Task
from models.generation.kv_cache import Prefix, Step
from models.generation.loop import TokenGeneration
from models.generation.search import GeneratedTokens, Plan, sample
from models.inputs import CaptionInput, GenerationSettings, Input, QuestionInput, Sampling, Turn
from models.layers.attention import KeyValue
from models.outputs import Generated, GeneratedSequence
from tests.models import asking

IMAGES = ("s0_ev0", "s1_ev1", "s3_china_160x120", "s5_flower_L_90x140")
PROMPTS = (None, "", "a photo of a big", "there is a red")
QUESTIONS = ("what is it?", "is there a red circle in the picture, or is it a blue one?", "color?")
HISTORY = (Turn("what shape is in the image?", "circle"), Turn("is there a blue shape?", "no"))


@pytest.fixture(scope="module")
def checkpoints(served: dict[str, ServedModel], served2: dict[str, ServedModel]) -> dict[str, Checkpoint]:
    """One for each decoder."""
    blip = served["blip"].checkpoints
    language = {name: served2[name].checkpoints[Task.VQA] for name in ("opt", "t5")}
    return {"caption": blip[Task.CAPTION], "vqa": blip[Task.VQA], **language}


@pytest.fixture(scope="module")
def caption(checkpoints: dict[str, Checkpoint]) -> Checkpoint:
    return checkpoints["caption"]


def captions(settings: GenerationSettings) -> list[Input]:
    return [CaptionInput(prompt, settings) for prompt in PROMPTS]


def questions(settings: GenerationSettings) -> list[Input]:
    return [QuestionInput(text, settings=settings) for text in QUESTIONS]


def mixed(settings: GenerationSettings) -> list[Input]:
    """BLIP-2 runs all of these in one generation."""
    dialogue = QuestionInput("is it red?", HISTORY, settings=settings)
    return [CaptionInput(None, settings), questions(settings)[1], CaptionInput("a photo of", settings), dialogue]


REQUESTS = {"caption": captions, "vqa": questions, "opt": mixed, "t5": mixed}


def items_of(checkpoints: dict[str, Checkpoint], decoder: str, settings: GenerationSettings) -> list[Item]:
    """Every request about every image."""
    requests = REQUESTS[decoder](settings)
    return [asking.item(checkpoints[decoder], image, request) for image in IMAGES for request in requests]


def assert_equal(together: list[Generated], alone: list[Generated]) -> None:
    for ours, expected in zip(together, alone, strict=True):
        assert [one.text for one in ours.sequences] == [one.text for one in expected.sequences]
        assert [one.confidence for one in ours.sequences] == pytest.approx(
            [one.confidence for one in expected.sequences], abs=1e-5
        )


SETTINGS = {
    "greedy": GenerationSettings(num_beams=1),
    "beams": GenerationSettings(),
    "n-best": GenerationSettings(num_sequences=3, num_beams=4),
    "lengths": GenerationSettings(min_new_tokens=4, max_new_tokens=6, length_penalty=-1),
    "penalty": GenerationSettings(repetition_penalty=1.7),
    "sampling": GenerationSettings(num_sequences=2, sampling=Sampling(seed=3)),
}


@pytest.mark.parametrize("decoder", REQUESTS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_batch_of_different_requests_equals_each_alone(
    checkpoints: dict[str, Checkpoint], decoder: str, settings: GenerationSettings
) -> None:
    checkpoint, items = checkpoints[decoder], items_of(checkpoints, decoder, settings)
    alone = [asking.generate(checkpoint, [item])[0] for item in items]
    assert len({one.sequences[0].text for one in alone}) > 3
    assert_equal(asking.generate(checkpoint, items), alone)


@pytest.mark.parametrize("decoder", REQUESTS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_rows_that_join_later_and_rows_that_leave_change_nobody_else(
    checkpoints: dict[str, Checkpoint], decoder: str, settings: GenerationSettings
) -> None:
    checkpoint, items = checkpoints[decoder], items_of(checkpoints, decoder, settings)
    first, leaver, second, third = items[:3], items[3], items[4:6], items[6:]
    answers: dict[Item, Generated] = {}
    generation = checkpoint.heads.generate([*first, leaver])
    answers |= dict(generation.step())
    generation.admit(second)
    answers |= dict(generation.step())
    generation.drop(leaver)
    generation.admit(third)
    while len(generation):
        answers |= dict(generation.step())
    stayed = [*first, *second, *third]
    assert_equal([answers[item] for item in stayed], [asking.generate(checkpoint, [item])[0] for item in stayed])


@pytest.mark.parametrize("decoder", REQUESTS)
def test_requests_with_all_settings_share_one_generation(checkpoints: dict[str, Checkpoint], decoder: str) -> None:
    """Greedy rows, beams of several widths and samples, joining one after the other."""
    checkpoint = checkpoints[decoder]
    items = [item for settings in SETTINGS.values() for item in items_of(checkpoints, decoder, settings)[::5]]
    assert len({item.key for item in items}) == 1
    waiting, answers = items[3:], dict[Item, Generated]()
    generation = checkpoint.heads.generate(items[:3])
    while len(generation):
        answers |= dict(generation.step())
        if waiting:
            generation.admit([waiting.pop()])
    assert_equal([answers[item] for item in items], [asking.generate(checkpoint, [item])[0] for item in items])


def test_a_row_leaves_as_soon_as_it_is_finished(caption: Checkpoint) -> None:
    short, long = (
        asking.item(
            caption, IMAGES[0], CaptionInput(None, GenerationSettings(num_beams=1, max_new_tokens=n, min_new_tokens=n))
        )
        for n in (2, 5)
    )
    generation = caption.heads.generate([short, long])
    assert [[item for item, _ in generation.step()] for _ in range(5)] == [[], [short], [], [], [long]]
    assert len(generation) == 0


def test_the_settings_are_kept(caption: Checkpoint) -> None:
    settings = GenerationSettings(num_sequences=4, min_new_tokens=3, max_new_tokens=5)
    (answer,) = asking.generate(caption, [asking.item(caption, IMAGES[2], CaptionInput(None, settings))])
    assert len(answer.sequences) == 4
    for sequence in answer.sequences:
        assert 3 <= sequence.num_tokens <= 5 + 1  # the stop token counts
        assert 0 < sequence.confidence <= 1


@pytest.mark.parametrize("decoder", REQUESTS)
def test_a_seed_repeats_and_another_differs(checkpoints: dict[str, Checkpoint], decoder: str) -> None:
    def texts(seed: int | None) -> list[str]:
        settings = GenerationSettings(num_sequences=8, sampling=Sampling(temperature=3.0, top_p=1.0, seed=seed))
        item = asking.item(checkpoints[decoder], IMAGES[2], REQUESTS[decoder](settings)[0])
        return [sequence.text for sequence in asking.generate(checkpoints[decoder], [item])[0].sequences]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)
    assert texts(None) != texts(None)


def test_sampling_draws_from_the_nucleus_by_probability() -> None:
    scores = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(20_000, 1)
    random = torch.Generator().manual_seed(0)
    drawn = sample(scores, Sampling(top_p=0.9, top_k=50), random).bincount(minlength=4) / len(scores)
    torch.testing.assert_close(drawn, torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95, atol=0.02, rtol=0)
    drawn = sample(scores, Sampling(top_p=1.0, top_k=2), random).bincount(minlength=4) / len(scores)
    torch.testing.assert_close(drawn, torch.tensor([0.5, 0.3, 0.0, 0.0]) / 0.8, atol=0.02, rtol=0)
    drawn = sample(scores, Sampling(top_p=1.0, temperature=0.5), random).bincount(minlength=4) / len(scores)
    squared = torch.tensor([0.25, 0.09, 0.0225, 0.0025])
    torch.testing.assert_close(drawn, squared / squared.sum(), atol=0.02, rtol=0)


def test_the_smallest_penalty_does_not_break_the_draw(caption: Checkpoint) -> None:
    settings = GenerationSettings(repetition_penalty=1e-40, max_new_tokens=4, sampling=Sampling(top_k=1, seed=0))
    (answer,) = asking.generate(caption, [asking.item(caption, IMAGES[0], CaptionInput("a red", settings))])
    assert set(answer.sequences[0].text.split()) <= {"a", "red"}  # what was seen is now what is most likely


def test_a_stop_token_that_is_certain_but_forbidden_leaves_the_confidence_finite() -> None:
    class Certain:
        stop_id = 0

        def plan(self, item: Item) -> Plan:
            return item.payload

        def prefill(self, batch: Sequence[Item]) -> Prefix:
            nothing = torch.zeros(len(batch), 1, 0, 1)
            return Prefix([KeyValue(nothing, nothing)], [0] * len(batch))

        def decode(self, step: Step) -> torch.Tensor:
            return torch.tensor([[100.0, 1.0, 0.0]]).expand(len(step.ids), -1)

        def settled(self, ids: Sequence[int]) -> str:
            return str(ids)

        def finish(self, _: Item, sequences: Sequence[GeneratedTokens]) -> Generated:
            return Generated(tuple(GeneratedSequence("", one.confidence, one.num_tokens) for one in sequences))

    plan = Plan(
        (2,), (2,), 1, 1, max_new_tokens=3, min_new_tokens=2, length_penalty=1, repetition_penalty=1, sampling=None
    )
    generation = TokenGeneration(Certain(), [Item(Op.GENERATE, None, plan)])
    assert [generation.step() for _ in range(2)] == [[], []]
    ((_, generated),) = generation.step()
    assert generated.sequences[0].num_tokens == 3
    assert generated.sequences[0].confidence == pytest.approx((0.7310586**2 * 1.0) ** (1 / 3), abs=1e-5)


TOLD = {
    "greedy": GenerationSettings(num_beams=1),
    "sampling": GenerationSettings(2, max_new_tokens=12, sampling=Sampling(seed=5, temperature=2.0)),
}


@pytest.mark.parametrize("decoder", REQUESTS)
@pytest.mark.parametrize("settings", TOLD.values(), ids=TOLD)
def test_what_is_told_begins_the_final_text(
    checkpoints: dict[str, Checkpoint], decoder: str, settings: GenerationSettings
) -> None:
    """Of every row, in one batch; and to tell it changes nothing."""
    items = items_of(checkpoints, decoder, settings)
    alone = [asking.generate(checkpoints[decoder], [item])[0] for item in items]
    told: list[list[Sequence[str]]] = [[] for _ in items]
    listened = [replace(item, tell=own.append) for item, own in zip(items, told, strict=True)]
    together = asking.generate(checkpoints[decoder], listened)
    assert_equal(together, alone)
    for generated, own in zip(together, told, strict=True):
        steps = max(one.num_tokens for one in generated.sequences)
        assert len(own) == steps - 1  # the last is the result's
        for texts in own:
            assert all(one.text.startswith(text) for one, text in zip(generated.sequences, texts, strict=True))
    words = max(len(text.split()) for own in told for texts in own for text in texts)
    assert words >= 2 or decoder == "vqa"  # whose answers are a word or two


def test_beams_are_not_told_before_the_end(checkpoints: dict[str, Checkpoint]) -> None:
    (item,) = items_of(checkpoints, "caption", GenerationSettings(num_beams=3))[:1]
    told: list[Sequence[str]] = []
    asking.generate(checkpoints["caption"], [replace(item, tell=told.append)])
    assert told == []


@pytest.mark.parametrize("decoder", REQUESTS)
def test_a_sequence_says_whether_the_limit_cut_it(checkpoints: dict[str, Checkpoint], decoder: str) -> None:
    for beams in (1, 3):
        for longest in (2, 30):
            settings = GenerationSettings(num_beams=beams, max_new_tokens=longest)
            for item in items_of(checkpoints, decoder, settings)[:3]:
                (one,) = asking.generate(checkpoints[decoder], [item])[0].sequences
                assert not one.is_cut or one.num_tokens == longest
                assert one.is_cut or one.num_tokens <= longest
                longer = replace(item, payload=replace(item.payload, how=replace(item.payload.how, max_new_tokens=40)))
                (whole,) = asking.generate(checkpoints[decoder], [longer])[0].sequences
                if beams == 1:
                    assert one.is_cut == (whole.num_tokens > longest)


@pytest.mark.parametrize("decoder", REQUESTS)
@pytest.mark.parametrize("settings", [SETTINGS["beams"], SETTINGS["sampling"]], ids=["beams", "sampling"])
def test_the_memory_of_a_row_is_known_before_it_begins(
    checkpoints: dict[str, Checkpoint], decoder: str, settings: GenerationSettings
) -> None:
    """What its slot holds at its end, if it uses all the tokens that it may."""
    checkpoint = checkpoints[decoder]
    item = asking.item(
        checkpoint, IMAGES[0], REQUESTS[decoder](replace(settings, min_new_tokens=8, max_new_tokens=8))[0]
    )
    generation: Any = checkpoint.heads.generate([item])
    for _ in range(7):
        generation.step()
    cache = generation._cache
    source = () if cache._source is None else cache._source.row(0).layers
    held = sum(part.nbytes for layer in (*cache.row(0).past, *source) for part in layer)
    token = sum(part[0, :, 0].nbytes for layer in cache._own.layers for part in layer)
    assert (
        held < item.cache_bytes <= held + 2 * item.payload.how.num_lines * token
    )  # the eighth step's, and the first's
