"""Scenes, what can be said of them, and the truth of public pictures."""

from __future__ import annotations

from random import Random

import pytest

from training import easyvqa
from training.captions import SHORT_CAPTIONS, describe, entails, parse, random_caption, spoil
from training.easyvqa import coverage, seen_color, seen_kind
from training.questions import random_question
from training.scenes import Box, Scene, Shape, measure, random_scene
from training.vocabulary import CLS, SHAPES

RED = Shape("red", "circle", Box(4, 40, 14, 50))
GREEN = Shape("green", "rectangle", Box(40, 10, 60, 20))
PAIR = Scene((RED, GREEN))


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("a red circle", True),
        ("a red triangle", False),
        ("a small red circle at the bottom left", True),
        ("a large red circle", False),
        ("a green shape at the top right", True),
        ("a red circle to the left of a green rectangle", True),
        ("a red circle to the right of a green rectangle", False),
        ("a green rectangle above a red circle", True),
        ("a green rectangle and a red circle", True),
        ("a green rectangle and a green rectangle", False),
        ("a red circle, a green rectangle and a blue circle", False),
        ("a photo of my cat", False),
    ],
)
def test_entails(text: str, truth: bool) -> None:
    assert entails(text, PAIR) is truth


def test_one_caption_describes_a_scene() -> None:
    assert str(describe(Scene((RED,)))) == "a small red circle at the bottom left"
    assert str(describe(PAIR)) == "a red circle to the left of a green rectangle"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_captions_are_true_and_spoilt_ones_false(count: int) -> None:
    rng = Random(count)
    for _ in range(50):
        scene, _ = random_scene(rng, count)
        caption = random_caption(rng, scene)
        assert parse(str(caption)) == caption
        assert entails(str(caption), scene)
        assert entails(str(describe(scene)), scene)
        spoilt = spoil(rng, caption, scene)
        assert spoilt is None or not entails(str(spoilt), scene)


def test_generated_pictures_show_what_the_scene_says() -> None:
    rng = Random(7)
    for _ in range(50):
        scene, pixels = random_scene(rng, 1)
        (shape,) = scene.shapes
        covered = coverage(pixels, shape.color)
        seen = Shape(seen_color(pixels), seen_kind(covered), measure(covered))
        assert (seen.name, seen.size, seen.position) == (shape.name, shape.size, shape.position)


def test_questions_are_of_many_lengths() -> None:
    rng = Random(3)
    scenes = [random_scene(rng, 1 + number % 3)[0] for number in range(60)]
    lengths = {len(SHAPES.encode(random_question(rng, scene)[0], CLS)) - 2 for scene in scenes for _ in range(20)}
    assert min(lengths) <= 4
    assert max(lengths) >= 18


def test_public_truth_agrees_with_the_package_and_the_pixels() -> None:
    examples = easyvqa.load("test")
    assert len(examples) == 1000
    assert sum(len(example.questions) for example in examples) == 9673
    for example in examples:
        (shape,) = example.scene.shapes
        assert seen_color(example.pixels) == shape.color
        assert seen_kind(coverage(example.pixels, shape.color)) == shape.kind
        assert f"a {shape.name}" in SHORT_CAPTIONS
