"""The demo's BLIP-2: all stages run, repeat from their files, and make checkpoints that transformers can read."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoTokenizer, Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval

from training import easyvqa
from training.blip2.export import export
from training.blip2.language import NUM_QUERIES, Speller, description, learn_spelling
from training.blip2.texts import WHAT_IS_THERE, prompt, random_text, talking_text
from training.blip2.train import Recipe, Training
from training.dialogues import follow_up, needing_the_turn_before, pointed, random_dialogue
from training.loop import Plan
from training.questions import random_question
from training.scenes import Scene, random_scene

TINY = Plan(2, peak=1e-3, floor=0, num_pictures=4, warm_up=1)
HALF = replace(TINY, dtype=torch.bfloat16)
RECIPE = Recipe(
    language=TINY, querying=TINY, speaking=TINY, speaking_on=TINY, talking=HALF, pool_size=400, num_watched=9
)  # with fewer, some words never occur


def scenes(number: int) -> list[Scene]:
    rng = Random(1)
    return [random_scene(rng, 1 + index % 3)[0] for index in range(number)]


@pytest.fixture(scope="module")
def speller() -> Speller:
    return learn_spelling(scenes(300))


def test_all_stages_and_the_export(tmp_path: Path) -> None:
    examples = easyvqa.load("test")[:40]
    training = Training(RECIPE, tmp_path, examples[:30], examples[30:])
    language_model = training.learn_language()
    training.query()
    speaking = training.speak(language_model)
    export(training.querying, speaking, training.speller, tmp_path / "demo")
    again = Training(RECIPE, tmp_path, examples[:30], examples[30:])  # from the files
    again.query()
    repeated = again.speak(again.learn_language()).state_dict()
    for name, weight in speaking.state_dict().items():
        assert torch.equal(weight, repeated[name]), name
    reference = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "demo" / "generate")
    assert torch.equal(reference.language_model.get_input_embeddings().weight, language_model.tokens.weight.half())
    Blip2ForImageTextRetrieval.from_pretrained(tmp_path / "demo" / "match")


def test_the_last_phase_goes_on_from_halves_as_from_the_weights_themselves(tmp_path: Path) -> None:
    examples = easyvqa.load("test")[:40]
    training = Training(RECIPE, tmp_path, examples[:30], examples[30:])
    language_model = training.learn_language()
    training.query()
    spoken = training.speak(language_model).state_dict()
    (tmp_path / "stage 2, talking.pt").unlink()
    for name in ("language.pt", "stage 2, on.pt"):
        state = torch.load(tmp_path / name, weights_only=True)
        torch.save({key: value.half().float() for key, value in state.items()}, tmp_path / name)
    again = Training(RECIPE, tmp_path, examples[:30], examples[30:])
    again.query()
    repeated = again.speak(again.learn_language()).state_dict()
    before = torch.load(tmp_path / "stage 2, on.pt", weights_only=True)
    assert not torch.equal(spoken["projection.weight"], before["projection.weight"])
    for name, weight in spoken.items():
        assert torch.equal(weight, repeated[name]), name


def test_a_description_is_as_long_as_there_are_queries(speller: Speller) -> None:
    for scene in scenes(60):
        ids = speller.described(scene)
        assert len(ids) == NUM_QUERIES
        assert speller.tokenizer.decode(ids).removesuffix("<pad>") == "".join(description(scene))


def test_training_texts_are_tokenised_as_the_exported_tokenizer_does(speller: Speller, tmp_path: Path) -> None:
    speller.save(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    rng = Random(2)
    for scene in scenes(60):
        text = random_text(rng, scene, ())
        ids, learned = speller.lines([text])
        assert ids[0].tolist() == tokenizer("".join(part for part, _ in text)).input_ids
        assert "".join(part for part, is_learned in text if is_learned) == tokenizer.decode(ids[learned])
    assert tokenizer.convert_tokens_to_ids("<image>") == len(speller)


def test_a_dialogue_goes_on_about_the_shape_of_the_turn_before() -> None:
    rng = Random(3)
    for scene in scenes(120):
        turns = random_dialogue(rng, scene, partial(random_question, rng, scene), 4)
        assert len(turns) == 4
        if made := pointed(rng, scene) if len(scene.shapes) > 1 else None:
            question, shape = made
            assert question[1] in {shape.color, shape.kind, shape.size, shape.position, shape.name}
            assert follow_up(rng, shape)[1] in {shape.color, shape.kind, shape.size, shape.position, "yes", "no"}


def test_the_second_and_third_turn_cannot_be_answered_alone() -> None:
    rng, found = Random(4), 0
    for scene in scenes(300):
        turns = needing_the_turn_before(rng, scene) if len(scene.shapes) > 1 else None
        if turns is None:
            continue
        found += 1
        assert len({answer for _, answer in turns[1:]}) == 2
        assert not any(color in question for question, _ in turns[1:] for color in ("red", "blue", "green"))
    assert found > 50


def test_the_last_phase_is_mostly_dialogues_about_one_of_several_shapes() -> None:
    rng = Random(5)
    several = [scene for scene in scenes(600) if len(scene.shapes) > 1]
    texts = ["".join(part for part, _ in talking_text(rng, scene, ())) for scene in several]
    turns = [text.count("Question: ") for text in texts]
    assert sum(number == 3 for number in turns) > 0.4 * len(texts)
    assert sum(number > 1 for number in turns) > 0.5 * len(texts)
    assert 0 in turns  # captions
    assert any(WHAT_IS_THERE in text for text in texts)
    assert all(text.endswith("\n") for text in texts)


def test_a_prompt_holds_the_turns_before_it() -> None:
    turns = [("what is it?", "circle")]
    assert prompt(turns, "where?") == "Question: what is it? Answer: circle. Question: where? Answer:"
