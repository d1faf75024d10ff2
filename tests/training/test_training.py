"""All phases run, repeat exactly, and pick up where they left off."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoTokenizer

from training import easyvqa, vocabulary
from training.captions import random_caption
from training.data import CaptionBatches, JointBatches, Mix
from training.export import export
from training.loop import Plan
from training.questions import random_question
from training.scenes import random_scene
from training.train import SEED, Recipe, Training

TINY = Plan(2, peak=1e-3, floor=0, num_pictures=4, warm_up=1)
RECIPE = Recipe(captions=TINY, joint=TINY, answers=TINY, num_questions=2, pool_size=40, num_watched=6)


def trained(work: Path, examples: list[easyvqa.Example]) -> Training:
    torch.manual_seed(SEED)
    training = Training(RECIPE, work, examples[:30], examples[30:])
    training.caption()
    training.join()
    return training


def test_all_phases_and_the_export(tmp_path: Path) -> None:
    examples = easyvqa.load("test")[:40]
    training = trained(tmp_path, examples)
    export(training.model, training.answer(), tmp_path / "demo")
    assert {file.parent.name for file in tmp_path.rglob("model.safetensors")} == {"caption", "vqa", "match"}
    again = trained(tmp_path, examples)  # from the files
    for name, weight in training.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name


def test_the_learning_rate_rises_stays_and_falls() -> None:
    plan = Plan(100, peak=1.0, floor=0.2, num_pictures=1, warm_up=10, hold=60)
    rates = [plan.rate(step) for step in (1, 10, 60, 80, 100)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.6, 0.2])
    assert Plan(100, peak=1.0, floor=0.0, num_pictures=1, warm_up=20).rate(60) == pytest.approx(0.5)


def test_a_batch_depends_on_its_number_alone() -> None:
    mix = Mix(0.0, (0.4, 0.3, 0.3))
    captions, joint = CaptionBatches("a", mix, (), 4), JointBatches("a", mix, (), 4)
    assert torch.equal(captions[3].pixels, captions[3].pixels)
    assert not torch.equal(captions[3].pixels, captions[4].pixels)
    assert torch.equal(joint[1].texts.true, joint[1].texts.true)
    assert joint[1].texts.true[torch.arange(4), torch.arange(4)].all()


def test_training_texts_are_tokenised_as_the_real_tokenizer_does(tmp_path: Path) -> None:
    vocabulary.save(vocabulary.SHAPES, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    rng = Random(1)
    for number in range(100):
        scene, _ = random_scene(rng, 1 + number % 3)
        for text in (str(random_caption(rng, scene)), *random_question(rng, scene)):
            assert tokenizer(text).input_ids == vocabulary.SHAPES.encode(text, vocabulary.CLS)
