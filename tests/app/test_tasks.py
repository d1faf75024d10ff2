"""The tasks, over a model that knows colours."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from app.inference import SMALL_BODY_BYTES
from app.wire.answers import CaptionAnswer, EmbedAnswer, MatchAnswer, VqaAnswer
from models.base import (
    Capabilities,
    CaptionInput,
    GenerationSettings,
    ImageEmbeddingInput,
    PairInput,
    QuestionInput,
    Sampling,
    TextInput,
    Turn,
)
from models.fake.answers import DIMENSIONS
from tests.app.conftest import Shared
from tests.app.support import BLUE, GREEN, RED, b64, encoded, lab, run


def checked(response: Any, answer: Any) -> Any:
    """An answer that says what the documentation says, and nothing else."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert TypeAdapter(answer).validate_python(body, strict=True) == body
    assert body["model"] == "fake"
    return body


# --- caption ---


def test_caption_of_each_image_in_order(shared: Shared) -> None:
    response = shared.post("/caption", json={"images": [b64(RED), b64(BLUE), b64(RED)]})
    captions = checked(response, CaptionAnswer)["captions"]
    assert [caption["text"] for caption in captions] == ["a red picture", "a blue picture", "a red picture"]
    assert all(0 < caption["confidence"] <= 1 and caption["alternatives"] == [] for caption in captions)


def test_alternatives(shared: Shared) -> None:
    [caption] = checked(shared.ask("/caption", num_captions=3), CaptionAnswer)["captions"]
    texts = [caption["text"], *(other["text"] for other in caption["alternatives"])]
    assert len(texts) == len(set(texts)) == 3


@pytest.mark.parametrize(
    ("fields", "settings"),
    [
        ({}, GenerationSettings()),
        ({"num_captions": 4}, GenerationSettings(num_sequences=4)),
        (
            {
                "num_beams": 5,
                "max_new_tokens": 20,
                "min_new_tokens": 2,
                "length_penalty": -1,
                "repetition_penalty": 1.5,
            },
            GenerationSettings(1, 5, 20, 2, -1, 1.5),
        ),
        ({"sample": True}, GenerationSettings(sampling=Sampling())),
        (
            {"sample": True, "top_p": 0.5, "top_k": 7, "temperature": 2, "seed": 3, "num_captions": 2},
            GenerationSettings(2, sampling=Sampling(0.5, 7, 2, 3)),
        ),
        ({"num_beams": None, "seed": None}, GenerationSettings()),
    ],
)
def test_generation_settings(shared: Shared, fields: dict[str, Any], settings: GenerationSettings) -> None:
    shared.lab.heads.calls.clear()
    checked(shared.ask("/caption", **fields), CaptionAnswer)
    assert shared.lab.heads.calls[0].payloads == [CaptionInput(None, settings)]


def test_seed_makes_sampling_repeatable(shared: Shared) -> None:
    once, again = (shared.ask("/caption", sample=True, seed=7, num_captions=8).text for _ in range(2))
    assert once == again != shared.ask("/caption", sample=True, seed=8, num_captions=8).text


def test_large_bodies_and_long_texts(shared: Shared) -> None:
    """Which are read, and tokenised, on another thread."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    large = encoded(Image.fromarray(noise))
    assert len(large) > SMALL_BODY_BYTES
    assert checked(shared.ask("/caption", large), CaptionAnswer)["captions"][0]["text"] == "a gray picture"
    question = "what color is it? " * 200
    assert checked(shared.ask("/vqa", question=question), VqaAnswer)["answers"][0]["answer"] == "red"


# --- vqa ---


def test_questions_about_one_image(shared: Shared) -> None:
    questions = ["what color is it?", "is it blue?", "how many?"]
    answers = checked(shared.ask("/vqa", question=questions), VqaAnswer)["answers"]
    assert [answer["question"] for answer in answers] == questions
    assert [answer["answer"] for answer in answers] == ["red", "no", "1"]
    assert all("candidates" not in answer and "history_used" not in answer for answer in answers)


def test_rank_mode(shared: Shared) -> None:
    candidates = ["blue", "red", "green", "orange"]
    [answer] = checked(shared.ask("/vqa", candidates=candidates, rank_k=2), VqaAnswer)["answers"]
    ranked = answer["candidates"]
    assert {one["answer"] for one in ranked} == set(candidates)
    assert (answer["answer"], answer["confidence"]) == ("red", ranked[0]["probability"])
    probabilities = [one["probability"] for one in ranked]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)
    assert probabilities[2:] == [0, 0]


def test_rank_k_has_a_default(shared: Shared) -> None:
    shared.lab.heads.calls.clear()
    shared.ask("/vqa", candidates=[f"answer {number}" for number in range(200)])
    assert shared.lab.heads.calls[0].payloads[0].k == 128


def test_history_and_template_where_the_model_takes_them() -> None:
    async def test() -> None:
        async with lab(Capabilities(history=True, template=True)) as there:
            turn = {"question": " is it red? ", "answer": "yes"}
            response = await there.ask("/vqa", question="why?", history=[turn], template="Q: {} A:")
            assert checked(response, VqaAnswer)["answers"][0]["history_used"] == 1
            asked = QuestionInput("why?", (Turn("is it red?", "yes"),), "Q: {} A:")
            assert there.heads.calls[0].payloads == [asked]
            ranked = await there.ask("/vqa", question="why?", history=[turn] * 2, candidates=["yes", "no"])
            assert checked(ranked, VqaAnswer)["answers"][0]["history_used"] == 2
            alone = await there.ask("/vqa", question="why?")
            assert "history_used" not in checked(alone, VqaAnswer)["answers"][0]

    run(test)


# --- match ---


def test_match_all_pairs(shared: Shared) -> None:
    body = {"images": [b64(RED), b64(BLUE)], "text": ["a red thing", "a blue thing", "nothing"]}
    scores = checked(shared.post("/match", json=body), MatchAnswer)["scores"]
    assert [len(row) for row in scores] == [3, 3]
    for row, right in zip(scores, (0, 1), strict=True):
        assert max(range(3), key=lambda text: row[text]["itm"]) == right
        assert max(range(3), key=lambda text: row[text]["itc"]) == right
        for pair in row:
            weights = np.exp(pair["itm_logits"])
            assert pair["itm"] == pytest.approx(weights[1] / weights.sum())


@pytest.mark.parametrize(("head", "keys"), [("itm", {"itm", "itm_logits"}), ("itc", {"itc"})])
def test_match_one_head(shared: Shared, head: str, keys: set[str]) -> None:
    shared.lab.heads.calls.clear()
    [[pair]] = checked(shared.ask("/match", head=head), MatchAnswer)["scores"]
    assert set(pair) == keys
    kinds = {type(payload) for call in shared.lab.heads.calls for payload in call.payloads}
    assert kinds == ({PairInput} if head == "itm" else {TextInput, ImageEmbeddingInput})


def test_match_computes_equals_once(shared: Shared) -> None:
    shared.lab.heads.calls.clear()
    body = {"images": [b64(RED), b64(GREEN), b64(RED)], "text": ["red", "green", " red"]}
    scores = checked(shared.post("/match", json=body), MatchAnswer)["scores"]
    assert scores[0] == scores[2]
    assert scores[0][0] == scores[0][2] != scores[0][1]
    kinds = [type(payload) for call in shared.lab.heads.calls for payload in call.payloads]
    assert [kinds.count(kind) for kind in (PairInput, TextInput, ImageEmbeddingInput)] == [4, 2, 2]


# --- embed ---


def test_embeddings_compare_as_match_does(shared: Shared) -> None:
    body = {"images": [b64(RED), b64(BLUE)], "text": ["red", "blue"]}
    answer = checked(shared.post("/embed", json=body), EmbedAnswer)
    images, texts = (np.array([one["embedding"] for one in answer[kind]]) for kind in ("images", "texts"))
    assert images.shape == texts.shape == (2, DIMENSIONS) == (2, answer["dimensions"])
    assert np.linalg.norm(images, axis=1) == pytest.approx(1)
    itc = [[pair["itc"] for pair in row] for row in shared.post("/match", json=body).json()["scores"]]
    assert images @ texts.T == pytest.approx(np.array(itc), abs=1e-6)


def test_embed_images_or_texts_alone(shared: Shared) -> None:
    only_text = checked(shared.post("/embed", json={"text": "red"}), EmbedAnswer)
    assert (only_text["images"], len(only_text["texts"]), only_text["dimensions"]) == ([], 1, DIMENSIONS)
    only_image = checked(shared.ask("/embed"), EmbedAnswer)
    assert (len(only_image["images"]), only_image["texts"]) == (1, [])


def test_embed_base64(shared: Shared) -> None:
    numbers = checked(shared.ask("/embed", text="red"), EmbedAnswer)
    coded = checked(shared.ask("/embed", text="red", encoding="base64"), EmbedAnswer)
    for kind in ("images", "texts"):
        decoded = np.frombuffer(base64.b64decode(coded[kind][0]["embedding"]), "<f4")
        assert decoded.tolist() == numbers[kind][0]["embedding"]


def test_several_vectors_for_an_image() -> None:
    async def test() -> None:
        async with lab(Capabilities(pooling=("none", "mean"))) as there:
            shapes = {}
            for pooling in (None, "none", "mean"):
                answer = checked(await there.ask("/embed", text="red", pooling=pooling), EmbedAnswer)
                shapes[pooling] = np.shape(answer["images"][0]["embedding"])
                assert np.shape(answer["texts"][0]["embedding"]) == (DIMENSIONS,)
            assert shapes == {None: (4, DIMENSIONS), "none": (4, DIMENSIONS), "mean": (DIMENSIONS,)}
            coded = await there.ask("/embed", encoding="base64")
            assert len(checked(coded, EmbedAnswer)["images"][0]["embedding"]) == 4
            assert checked(await there.ask("/match"), MatchAnswer)["scores"][0][0]["itc"] > 0

    run(test)


# --- models ---


@pytest.mark.parametrize("path", ["/caption", "/vqa", "/match", "/embed"])
def test_model_by_name(shared: Shared, path: str) -> None:
    assert shared.ask(path, model="fake").status_code == 200
    response = shared.ask(path, model="other")
    assert (response.status_code, response.json()["type"]) == (404, "/errors/unknown-model")
