"""The tasks, over a model that knows colours. CapFilt is in test_capfilt.py."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from app.engine.batching import Kind
from app.sight import SMALL_BODY_BYTES
from app.wire.answers import CaptionAnswer, EmbedAnswer, MatchAnswer, VqaAnswer
from models.base import Capabilities, Op, Task
from models.fake.answers import DIMENSIONS
from models.fake.runner import FakeRunner, fake_models
from models.inputs import (
    CaptionInput,
    GenerationSettings,
    ImageEmbeddingInput,
    LikelihoodInput,
    PairInput,
    QuestionInput,
    RankInput,
    Sampling,
    StatesInput,
    TextInput,
    Turn,
)
from tests.app.conftest import Shared
from tests.app.support import (
    BLUE,
    GREEN,
    PNG,
    RED,
    TASKS,
    animated,
    b64,
    encoded,
    entered,
    lab,
    png,
    run,
    serving,
    until_ready,
    waiting,
)


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
            assert pair["sum"] == pytest.approx(pair["itm_logits"][1] + pair["itc"])


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


def test_likelihood_of_captions(shared: Shared) -> None:
    shared.lab.heads.calls.clear()
    body = {"images": [b64(RED), b64(BLUE), b64(RED)], "text": ["a red thing", "a blue thing", "a red thing"]}
    scores = checked(shared.post("/match", json=body | {"head": "lm"}), MatchAnswer)["scores"]
    assert [[set(pair) for pair in row] for row in scores] == [[{"lm"}] * 3] * 3
    assert scores[0] == scores[2]
    assert scores[0][0]["lm"] == scores[0][2]["lm"] > scores[0][1]["lm"]
    assert scores[1][1]["lm"] > scores[1][0]["lm"]
    asked = [payload for call in shared.lab.heads.calls for payload in call.payloads]
    assert sorted(one.text for one in asked) == ["a blue thing"] * 2 + ["a red thing"] * 2
    assert {type(one) for one in asked} == {LikelihoodInput}


# --- videos ---


def test_images_are_one_video(shared: Shared) -> None:
    """The fake's video is as red as it is blue."""
    body = {"images": [b64(RED), b64(BLUE)], "text": ["red", "blue", "green"], "video": True}
    [row] = checked(shared.post("/match", json=body), MatchAnswer)["scores"]
    assert row[0]["itc"] == pytest.approx(row[1]["itc"], abs=0.1)
    assert min(row[0]["itc"], row[1]["itc"]) > row[2]["itc"]
    embedded = checked(shared.post("/embed", json=body), EmbedAnswer)
    assert (len(embedded["images"]), len(embedded["texts"])) == (1, 3)
    image, text = (np.array(embedded[kind][0]["embedding"]) for kind in ("images", "texts"))
    assert image @ text == pytest.approx(row[0]["itc"], abs=1e-6)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_an_animation_is_the_video_of_its_frames(shared: Shared, kind: str) -> None:
    colours = [(30 * number, 0, 255 - 30 * number) for number in range(8)]
    body = {"text": ["red", "blue"], "video": True}
    frames = {"images": [b64(png(colour, (64, 48))) for colour in colours]}
    [alone] = checked(shared.ask("/match", animated(colours, kind), **body), MatchAnswer)["scores"]
    [together] = checked(shared.post("/match", json=body | frames), MatchAnswer)["scores"]
    for one, other in zip(alone, together, strict=True):
        assert one["itm_logits"] == pytest.approx(other["itm_logits"], abs=1e-5)
        assert one["itc"] == pytest.approx(other["itc"], abs=1e-5)
    files = {"image": ("a", animated(colours, kind))}
    assert shared.post("/match", files=files, data=body | {"video": "true"}).json()["scores"] == [alone]
    raw = shared.post("/match?text=red&text=blue&video=true", content=animated(colours, kind), headers=PNG)
    assert raw.json()["scores"] == [alone]


def test_a_video_of_one_picture_is_that_picture(shared: Shared) -> None:
    one, other = (checked(shared.ask("/match", video=video), MatchAnswer)["scores"] for video in (True, False))
    assert one == other


def test_frames_of_a_video_are_encoded_once() -> None:
    colours = [(9 * number, 0, 0) for number in range(20)]

    async def test() -> None:
        async with lab() as there:
            for _ in range(2):
                assert (await there.ask("/match", animated(colours), video=True)).status_code == 200
            assert sum(there.tower.sizes("encode")) == 8
            frames = [b64(png(colour)) for colour in colours]
            for _ in range(2):
                body = {"images": frames, "text": "red", "video": True}
                assert (await there.client.post("/match", json=body)).status_code == 200
            assert sum(there.tower.sizes("encode")) == 16
            assert (await there.ask("/match", animated(colours))).status_code == 200  # the first frame
            assert sum(there.tower.sizes("encode")) == 17
            assert there.admission.ledger.bytes == 0
            assert not there.admission.ledger.unfinished
            assert there.count("feature_cache_total", result="hit") == 9

    run(test)


GENERATE = Kind("fake-heads", Op.GENERATE)


def scored(what: object, video: bool = False) -> Kind:
    return Kind("fake-heads", Op.SCORE, what, video)


@pytest.mark.parametrize(
    ("path", "fields", "left"),
    [
        ("/caption", {}, {GENERATE: 3}),
        ("/capfilt", {}, {GENERATE: 3, scored(PairInput): 3}),
        (
            "/match",
            {"text": "red", "video": True},
            {scored(PairInput, True): 1, scored(TextInput): 1, scored(ImageEmbeddingInput, True): 1},
        ),
    ],
)
def test_equal_images_are_taken_on_as_one_encode(path: str, fields: dict[str, Any], left: dict[Kind, int]) -> None:
    """What is not to be encoded would refuse others, and keep a place in the queue."""

    async def test() -> None:
        async with lab() as there:
            with there.heads.held() as hold:
                body = {"images": [b64(RED)] * 3} | fields
                asking = asyncio.create_task(there.client.post(path, json=body))
                await entered(hold)
                assert there.admission.ledger.unfinished == left
            assert (await asking).status_code == 200

    run(test)


def test_a_question_about_two_images_is_taken_on_as_what_it_runs() -> None:
    """As a video: what is never seen to end would keep a place in the queue, and its rate would be learnt by nobody."""

    async def test() -> None:
        async with lab(Capabilities(num_images=2)) as there:
            with there.heads.held() as hold:
                images, questions = [b64(RED), b64(BLUE)], ["is it?", "what is it?"]
                body = {"images": images, "question": questions, "candidates": ["red", "blue"]}
                asking = asyncio.create_task(there.client.post("/vqa", json=body))
                await entered(hold)
                assert there.admission.ledger.unfinished == {scored(RankInput, True): 2}
                assert there.count("reserved_items") == 0
            assert (await asking).status_code == 200

    run(test)


def test_work_and_pixels_of_a_video_are_counted() -> None:
    async def test() -> None:
        async with lab() as there:
            with there.tower.held() as hold:
                asking = there.begin("/match", animated(["red", "green", "blue"]), video=True)
                await entered(hold)
                work = {scored(PairInput, True): 1, scored(TextInput): 1, scored(ImageEmbeddingInput, True): 1}
                assert there.admission.ledger.unfinished == work | {Kind("fake-tower", Op.ENCODE): 8}
                body = len(
                    json.dumps({"image": b64(animated(["red", "green", "blue"]))} | {"text": "red", "video": True})
                )
                assert there.admission.ledger.bytes == pytest.approx(body + 3 * 12 * 32 * 32, abs=50)
            assert (await asking).status_code == 200
            assert not there.admission.ledger.unfinished

    run(test)


def test_videos_of_other_lengths_are_not_batched_together() -> None:
    async def test() -> None:
        async with lab() as there:
            with there.heads.held() as hold:
                first = there.begin("/caption", GREEN)
                await entered(hold)
                videos = [animated(["red", "blue", "green"][:number]) for number in (2, 3, 3)]
                asking = [there.begin("/match", video, video=True, head="itm") for video in videos]
                await waiting(there.service, 3)
            await asyncio.gather(first, *asking)
            assert sorted(there.heads.sizes("score")) == [1, 2]

    run(test)


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


def test_states_of_images_texts_and_pairs(shared: Shared) -> None:
    images, texts = [b64(RED), b64(BLUE), b64(RED)], ["red", "blue", "green"]

    def ask(space: str, **body: Any) -> Any:
        return checked(shared.post("/embed", json={"space": space} | body), EmbedAnswer)

    def vectors(entries: list[dict[str, Any]]) -> Any:
        return np.array([one["embedding"] for one in entries])

    of_images, of_texts = ask("image", images=images), ask("text", text=texts)
    assert (len(of_images["images"]), of_images["texts"], "pairs" in of_images) == (3, [], False)
    assert (of_texts["images"], len(of_texts["texts"]), "pairs" in of_texts) == ([], 3, False)
    pairs = ask("multimodal", images=images, text=texts)
    assert (pairs["images"], pairs["texts"], pairs["dimensions"]) == ([], [], DIMENSIONS)
    expected = vectors(of_images["images"]) + vectors(of_texts["texts"])  # the fake's
    np.testing.assert_allclose(vectors(pairs["pairs"]), expected, atol=1e-6)
    one_image = ask("multimodal", image=images[0], text=texts)["pairs"]
    np.testing.assert_allclose(
        vectors(one_image), vectors(of_images["images"])[0] + vectors(of_texts["texts"]), atol=1e-6
    )
    one_text = ask("multimodal", images=images, text=texts[0])["pairs"]
    np.testing.assert_allclose(
        vectors(one_text), vectors(of_images["images"]) + vectors(of_texts["texts"])[0], atol=1e-6
    )
    coded = ask("image", images=images, encoding="base64")["images"][1]["embedding"]
    assert np.frombuffer(base64.b64decode(coded), "<f4").tolist() == of_images["images"][1]["embedding"]


def test_equal_states_are_computed_once(shared: Shared) -> None:
    shared.lab.heads.calls.clear()
    body = {"images": [b64(RED), b64(GREEN), b64(RED)], "text": ["red", "red", "red"], "space": "multimodal"}
    pairs = checked(shared.post("/embed", json=body), EmbedAnswer)["pairs"]
    assert pairs[0] == pairs[2] != pairs[1]
    assert sum(shared.lab.heads.sizes("score")) == 2
    asked = {payload for call in shared.lab.heads.calls for payload in call.payloads}
    assert asked == {StatesInput("multimodal", "red", "none")}


def test_several_states_of_an_image() -> None:
    capabilities = Capabilities(pooling=("none", "mean"), spaces=("itc", "image", "text", "multimodal"))

    async def test() -> None:
        async with lab(capabilities) as there:
            for space, kind, fields in (
                ("image", "images", {"image": b64(RED)}),
                ("multimodal", "pairs", {"image": b64(RED), "text": "red"}),
                ("text", "texts", {"text": "red"}),
            ):
                shapes = []
                for pooling in (None, "none", "mean"):
                    body = {"space": space, "pooling": pooling} | fields
                    answer = checked(await there.client.post("/embed", json=body), EmbedAnswer)
                    shapes.append(np.shape(answer[kind][0]["embedding"]))
                several = (DIMENSIONS,) if space == "text" else (4, DIMENSIONS)
                assert shapes == [several, several, (DIMENSIONS,)]

    run(test)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"space": "image"}, "space: the model fake has itc"),
        ({"video": True}, "video: the model fake does not take it"),
    ],
)
def test_what_a_model_cannot(fields: dict[str, Any], word: str) -> None:
    async def test() -> None:
        async with lab(Capabilities()) as there:
            response = await there.ask("/embed", **fields)
            assert (response.status_code, response.json()["type"]) == (422, "/errors/invalid-input")
            assert word in response.json()["detail"]
            if "video" in fields:
                assert (await there.ask("/match", **fields)).json()["detail"] == response.json()["detail"]
            assert not there.tower.calls

    run(test)


def test_a_task_that_a_model_lacks() -> None:
    """Likelihoods and CapFilt need a checkpoint for captions."""

    async def test() -> None:
        tower, heads = FakeRunner("fake-tower"), FakeRunner("fake-heads")
        [model] = fake_models(tower, heads)
        matching = {task: model.checkpoints[task] for task in (Task.MATCH, Task.EMBED)}
        models = [replace(model, name="matcher", checkpoints=matching), model]
        async with serving(lambda _: models) as (client, _):
            await until_ready(client)
            for path, body, task in (("/match", {"text": "red", "head": "lm"}, "caption"), ("/capfilt", {}, "capfilt")):
                refused = await client.post(path, json={"image": b64(RED), "model": "matcher"} | body)
                assert (refused.status_code, refused.json()["detail"]) == (422, f"model: does not have the task {task}")
                answer = await client.post(path, json={"image": b64(RED)} | body)
                assert (answer.status_code, answer.json()["model"]) == (200, "fake")

    run(test)


# --- models ---


@pytest.mark.parametrize("path", TASKS)
def test_model_by_name(shared: Shared, path: str) -> None:
    assert shared.ask(path, model="fake").status_code == 200
    response = shared.ask(path, model="other")
    assert (response.status_code, response.json()["type"]) == (404, "/errors/unknown-model")
