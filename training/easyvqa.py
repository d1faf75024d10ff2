"""The public easy-VQA pictures and questions (PyPI package `easy-vqa`, MIT), with the truth of each picture: colour and
kind from the package's own questions where those tell, everything else measured from the pixels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import easy_vqa
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.scenes import COLORS, KINDS, Pixels, Scene, Shape, measure


@dataclass(frozen=True, slots=True)
class Example:
    """One public picture, its truth, and the package's questions about it with their answers."""

    path: Path
    pixels: Pixels
    scene: Scene
    questions: tuple[tuple[str, str], ...]


def coverage(pixels: Pixels, color: str) -> NDArray[np.float64]:
    """How much of each pixel (64, 64) the one shape covers, 0..1."""
    values = pixels.astype(np.float64)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    background = np.median(border, axis=0)
    direction = np.array(COLORS[color]) - background
    return np.clip((values - background) @ direction / (direction @ direction), 0, 1)


def seen_color(pixels: Pixels) -> str:
    """The palette colour that most pixels have exactly."""
    return max(COLORS, key=lambda color: int((pixels == COLORS[color]).all(-1).sum()))


def seen_kind(covered: NDArray[np.float64]) -> str:
    """By how much of its box the shape fills: rectangle 1, circle pi / 4, triangle 1 / 2."""
    box = measure(covered)
    filled = float(covered.sum()) / ((box.right - box.left) * (box.bottom - box.top))
    return "rectangle" if filled > 0.9 else "circle" if filled > 0.73 else "triangle"


def told(questions: list[tuple[str, str]], words: tuple[str, ...]) -> str | None:
    """Which of `words` the questions and answers say is in the picture, if they do."""
    for question, answer in questions:
        if answer in words:
            return answer
        asked = [word for word in words if re.search(rf"\b{word}\b", question)]
        if asked and answer == ("no" if re.search(r"\b(not|no)\b", question) else "yes"):
            return asked[0]
    return None


def load(split: str) -> list[Example]:
    """All pictures of `train` (4,000) or `test` (1,000), by number."""
    if split == "train":
        paths, (texts, answers, numbers) = easy_vqa.get_train_image_paths(), easy_vqa.get_train_questions()
    else:
        paths, (texts, answers, numbers) = easy_vqa.get_test_image_paths(), easy_vqa.get_test_questions()
    questions: dict[int, list[tuple[str, str]]] = {number: [] for number in paths}
    for text, answer, number in zip(texts, answers, numbers, strict=True):
        questions[number].append((text, answer))
    return [_example(Path(paths[number]), questions[number]) for number in sorted(paths)]


def _example(path: Path, questions: list[tuple[str, str]]) -> Example:
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGB")).copy()
    color = told(questions, tuple(COLORS)) or seen_color(pixels)
    covered = coverage(pixels, color)
    kind = told(questions, KINDS) or seen_kind(covered)
    return Example(path, pixels, Scene((Shape(color, kind, measure(covered)),)), tuple(questions))
