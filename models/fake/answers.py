"""The answers of the fake model: from the colours of a picture, and the same on every machine."""

from __future__ import annotations

from math import exp
from typing import Any, cast
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.base import Capabilities, Item
from models.inputs import (
    CaptionInput,
    DetectInput,
    ExampleInput,
    GenerationSettings,
    ImageEmbeddingInput,
    LikelihoodInput,
    LocalizeInput,
    PairInput,
    QuestionInput,
    RankInput,
    SegmentInput,
    StatesInput,
    TextInput,
)
from models.outputs import Generated, GeneratedSequence, Localized, Scores, Video

COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "gray": (128, 128, 128),
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "orange": (255, 165, 0),
    "purple": (128, 0, 128),
    "brown": (139, 69, 19),
}
NAMES = tuple(COLOURS)
PALETTE = np.array(list(COLOURS.values()), np.float32) / 255  # (10, 3)
GRID = 4  # pixels per side, as the tower sees it
NUM_HASHED = 6  # dimensions of an embedding that tell texts without colours apart
DIMENSIONS = len(NAMES) + NUM_HASHED
NUM_VECTORS = 4  # of an image, unless it is pooled


def pixels(image: Image.Image) -> NDArray[np.float32]:
    """`(4, 4, 3)` in 0..1, each the mean of its part of the picture."""
    return np.asarray(image.resize((GRID, GRID), Image.Resampling.BOX), np.float32) / np.float32(255)


def generated(item: Item) -> Generated:
    """A caption or answer: the nearest colour first or, with sampling, colours in random order."""
    request: CaptionInput | QuestionInput = item.payload
    settings = request.settings
    distances = _distances(item)
    order = np.argsort(distances, kind="stable")
    if settings.sampling is not None:
        order = np.random.default_rng(settings.sampling.seed).permutation(order)
    return Generated(
        tuple(
            _sequence(_words(request, NAMES[index]), exp(-float(distances[index])), settings)
            for index in order[: settings.num_sequences]
        )
    )


def scores(item: Item, capabilities: Capabilities) -> Scores:
    match item.payload:
        case PairInput(text):
            return pair_logits(item, text)
        case TextInput(text):
            return _text_embedding(text)
        case ImageEmbeddingInput(pooling):
            num_vectors = NUM_VECTORS if capabilities.pooling and pooling == "none" else 1
            return np.repeat(_image_embedding(item), num_vectors, axis=0)
        case StatesInput(space, text, pooling):
            vector = np.zeros((1, DIMENSIONS), np.float32)
            if space != "text":
                vector = vector + _image_embedding(item)
            if text is not None:
                vector = vector + _text_embedding(text)
            several = bool(capabilities.pooling) and pooling == "none" and space != "text"
            return np.repeat(vector, NUM_VECTORS if several else 1, axis=0)
        case LikelihoodInput(text):
            named = [-float(distance) for name, distance in zip(NAMES, _distances(item), strict=True) if name in text]
            return np.array([max(named, default=-9.0)], np.float32)
        case SegmentInput(text):
            return _heat(item, text).reshape(GRID, GRID)
        case ExampleInput():
            features: Any = item.features
            return np.asarray(features.mean(0))
        case DetectInput(query):
            return _boxes(item, query)
        case RankInput() as request:
            return _rank(item, request)
    raise TypeError(f"the fake does not score {type(item.payload).__name__}")


def localized(item: Item) -> Localized:
    """Each word that names a colour is where that colour is."""
    request: LocalizeInput = item.payload
    words = request.text.lower().split()
    heat = _heats(item)
    nowhere = np.zeros(GRID * GRID, np.float32)
    maps = np.stack([heat.get(word, nowhere) for word in words]).reshape(-1, GRID, GRID)
    return Localized(tuple(words), maps, pair_logits(item, request.text))


def _heats(item: Item) -> dict[str, Scores]:
    """By colour: where it is, `(16,)` in 0..1."""
    features: Any = item.features
    away = np.linalg.norm(PALETTE[:, None] - features, axis=2)  # (10, 16)
    return dict(zip(NAMES, np.exp(-4 * away).astype(np.float32), strict=True))


def _heat(item: Item, text: str) -> Scores:
    """Where any colour is that the text names, `(16,)`."""
    nowhere = np.zeros(GRID * GRID, np.float32)
    named: list[Scores] = [heat for name, heat in _heats(item).items() if name in text.lower().split()]
    return np.asarray(np.max(np.stack([nowhere, *named]), axis=0))


def _boxes(item: Item, query: str | Scores) -> Scores:
    """A place for each pixel that the tower saw: how near it is to the colour that is named, or shown."""
    features: Any = item.features
    heat = _heat(item, query) if isinstance(query, str) else np.exp(-4 * np.linalg.norm(features - query, axis=1))
    top, left = (each.ravel() for each in np.indices((GRID, GRID)) / GRID)
    return np.stack([heat, left, top, left + 1 / GRID, top + 1 / GRID], axis=1).astype(np.float32)


def pair_logits(item: Item, text: str) -> Scores:
    """ITM's, `(2,)`."""
    similarity = 4 * float(_image_embedding(item)[0] @ _text_embedding(text)[0])
    return np.array([2 - similarity, similarity - 2], np.float32)


def _distances(item: Item) -> NDArray[np.float32]:
    """`(10,)`: how far the mean colour of the picture is from each that has a name."""
    features: Any = item.features
    if isinstance(features, Video):
        features = np.concatenate(cast("tuple[NDArray[np.float32], ...]", features.frames))
    return np.asarray(np.linalg.norm(PALETTE - features.mean(0), axis=1))


def _words(request: CaptionInput | QuestionInput, colour: str) -> list[str]:
    if isinstance(request, CaptionInput):
        return ["a", colour, "picture"]
    asked = request.question.lower()
    if "colo" in asked:
        return [colour]
    return ["1"] if "how many" in asked else ["yes" if colour in asked else "no"]


def _sequence(words: list[str], confidence: float, settings: GenerationSettings) -> GeneratedSequence:
    """`words`, as long as the settings want them; the stop token follows if there is room."""
    padded = words + ["again"] * ((settings.min_new_tokens or 0) - len(words))
    longest = len(padded) + 1 if settings.max_new_tokens is None else settings.max_new_tokens
    is_cut = longest <= len(padded)
    return GeneratedSequence(" ".join(padded[:longest]), confidence, min(len(padded) + 1, longest), is_cut)


def _image_embedding(item: Item) -> Scores:
    """A unit vector `(1, 16)`: how near each colour is."""
    vector = np.append(np.exp(-4 * _distances(item)), np.zeros(NUM_HASHED))
    return np.asarray(vector / np.linalg.norm(vector), np.float32)[None]


def _text_embedding(text: str) -> Scores:
    """A unit vector `(1, 16)`: the colours that are named, and a little of the text's hash."""
    words = text.lower().split()
    named = [float(name in words) for name in NAMES]
    hashed = [0.1 * (crc32(f"{number} {text}".encode()) % 97 + 1) / 97 for number in range(NUM_HASHED)]
    vector = np.array(named + hashed)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)[None]


def _rank(item: Item, request: RankInput) -> Scores:
    """The nearest named colour wins; candidates that name none come last, in order."""
    distances = dict(zip(NAMES, _distances(item), strict=True))
    scores = np.array([-8 * distances.get(candidate.lower(), np.float32(9)) for candidate in request.candidates])
    best = np.argsort(-scores, kind="stable")[: request.k]
    probabilities = np.zeros(len(scores), np.float32)
    probabilities[best] = np.exp(scores[best] - scores[best].max())
    return np.asarray(probabilities / probabilities.sum(), np.float32)
