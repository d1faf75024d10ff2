"""The embedded demo model, end to end: what README promises, and promise 1 with all tasks at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import models
from app.main import load_models
from bench.service import running_service
from tests.app.support import b64, encoded, serving, until_ready
from tests.app.test_streams import events, pieces, texts
from training.captions import describe, random_caption
from training.questions import random_question
from training.scenes import png, random_scene

EXAMPLE = (Path(models.__file__).parent / "checkpoints" / "demo" / "example.png").read_bytes()
CAPTION = "a blue circle to the left of a green rectangle"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """Of the real process, with the settings that a new user has but for the models and the exact dtype."""
    with (
        running_service(profile="demo-shapes", dtype="fp32") as service,
        httpx.Client(base_url=service.url, timeout=30) as client,
    ):
        yield client


def test_a_caption_in_each_form(client: httpx.Client) -> None:
    answers = [
        client.post("/caption", files={"image": EXAMPLE}),
        client.post("/caption", json={"image": b64(EXAMPLE)}),
        client.post("/caption", content=EXAMPLE, headers={"Content-Type": "image/png"}),
    ]
    captions = [answer.json()["captions"] for answer in answers]
    assert [caption["text"] for (caption,) in captions] == [CAPTION] * 3
    assert captions[0] == captions[1] == captions[2]
    assert captions[0][0]["confidence"] > 0.5


def test_questions(client: httpx.Client) -> None:
    questions = ["what color is the circle?", "how many shapes are there?", "is the circle above the rectangle?"]
    answer = client.post("/vqa", files={"image": EXAMPLE}, data={"question": questions})
    assert [one["answer"] for one in answer.json()["answers"]] == ["blue", "two", "no"]
    ranked = client.post("/vqa", json={"image": b64(EXAMPLE), "question": questions[0], "candidates": ["red", "blue"]})
    assert ranked.json()["answers"][0]["answer"] == "blue"


def test_a_further_question_on_an_image_finds_its_keys_and_values(client: httpx.Client) -> None:
    def gauges() -> dict[str, float]:
        lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("blip_feature_cache")]
        return {name: float(value) for name, value in (line.rsplit(maxsplit=1) for line in lines)}

    image = png(random_scene(Random("kept"), 2)[1])
    before = gauges()
    answers = [
        client.post("/vqa", files={"image": image}, data={"question": question}).json()["answers"]
        for question in ("is there a circle?", "what color is the circle?", "is there a circle?")
    ]
    after = gauges()
    assert answers[0] == answers[2]
    found, made = (f'blip_feature_cache_kept_total{{result="{result}"}}' for result in ("hit", "miss"))
    assert after[found] == before[found] + 2
    assert after[made] == before[made] + 1
    kept, every = "blip_feature_cache_kept_bytes", "blip_feature_cache_bytes"
    assert after[kept] > before[kept]
    assert after[every] - before[every] > after[kept] - before[kept]  # its features, too


def test_matching_and_its_embeddings(client: httpx.Client) -> None:
    texts = [CAPTION, "a red triangle above a green rectangle"]
    ((true, false),) = client.post("/match", files={"image": EXAMPLE}, data={"text": texts}).json()["scores"]
    assert true["itm"] > 0.9 > 0.1 > false["itm"]
    assert true["itc"] > false["itc"]
    embedded = client.post("/embed", files={"image": EXAMPLE}, data={"text": texts}).json()
    (image,), (text, _) = embedded["images"], embedded["texts"]
    cosine = sum(a * b for a, b in zip(image["embedding"], text["embedding"], strict=True))
    assert cosine == pytest.approx(true["itc"], abs=1e-5)


def test_a_dialogue(client: httpx.Client) -> None:
    history = [{"question": "what is to the left of the green rectangle?", "answer": "blue circle"}]
    body = {"model": "demo-blip2", "image": b64(EXAMPLE), "question": "and where is that one?", "history": history}
    (answer,) = client.post("/vqa", json=body).json()["answers"]
    assert answer["history_used"] == 1
    assert answer["answer"] in {"top left", "bottom left"}


def test_one_vector_for_each_query(client: httpx.Client) -> None:
    body = {"model": "demo-blip2", "image": b64(EXAMPLE), "text": CAPTION}
    embedded = client.post("/embed", json=body).json()
    ((score,),) = client.post("/match", json=body | {"head": "itc"}).json()["scores"]
    (image,), (text,) = embedded["images"], embedded["texts"]
    cosines = [sum(a * b for a, b in zip(one, text["embedding"], strict=True)) for one in image["embedding"]]
    assert len(cosines) > 1
    assert max(cosines) == pytest.approx(score["itc"], abs=1e-5)
    pooled = client.post("/embed", json=body | {"pooling": "mean"}).json()["images"][0]["embedding"]
    assert sum(number * number for number in pooled) == pytest.approx(1, abs=1e-5)


def test_it_says_that_it_is_a_demo(client: httpx.Client) -> None:
    served = client.get("/models").json()["models"]
    assert [(model["name"], model["family"]) for model in served] == [("demo", "blip"), ("demo-blip2", "blip2")]
    for model in served:
        assert "coloured shapes, not photos" in model["note"]
        assert set(model["tasks"]) - {"localize"} == {"caption", "vqa", "match", "embed", "capfilt"}
    assert ["localize" in model["tasks"] for model in served] == [True, False]


# --- the doors of other tools ---------------------------------------------------------------------------------------

LABELS = ["blue circle", "red triangle", "green rectangle"]


def softmax(values: Any) -> Any:
    weights = np.exp(np.array(values) - np.max(values))
    return weights / weights.sum()


@pytest.mark.parametrize("model", ["demo", "demo-blip2"])
def test_classes_by_arithmetic_on_embed(client: httpx.Client, model: str) -> None:
    served = {one["name"]: one for one in client.get("/models").json()["models"]}
    temperature = served[model]["tasks"]["match"]["temperature"]
    assert temperature == pytest.approx(14.3, abs=0.05)
    texts = [f"a photo of {label}." for label in LABELS]
    embedded = client.post("/embed", json={"model": model, "image": b64(EXAMPLE), "text": texts}).json()
    image = np.atleast_2d(embedded["images"][0]["embedding"])
    expected = softmax(temperature * (image @ np.array([one["embedding"] for one in embedded["texts"]]).T).max(0))
    [row] = client.post("/classify", json={"model": model, "image": b64(EXAMPLE), "label": LABELS}).json()["classes"]
    ours = {one["label"]: one["score"] for one in row}
    assert ours == pytest.approx(dict(zip(LABELS, expected, strict=True)), abs=1e-5)
    assert {row[0]["label"], row[1]["label"]} == {"blue circle", "green rectangle"}


@pytest.mark.parametrize("model", ["demo", "demo-blip2"])
@pytest.mark.parametrize("score", ["itm", "sum", "itc"])
def test_reranked_as_matched(client: httpx.Client, model: str, score: str) -> None:
    texts = [CAPTION, "a red triangle above a green rectangle", "a blue circle"]
    body = {"model": model, "image": b64(EXAMPLE), "text": texts}
    [pairs] = client.post("/match", json=body).json()["scores"]
    asked = {"model": model, "query": {"image": b64(EXAMPLE)}, "documents": texts, "score": score}
    results = client.post("/v1/rerank", json=asked).json()["results"]
    assert {one["index"]: one["relevance_score"] for one in results} == pytest.approx(
        {index: pair[score] for index, pair in enumerate(pairs)}, abs=1e-4
    )
    assert results[-1]["index"] == 1


@pytest.mark.parametrize("model", ["demo", "demo-blip2"])
@pytest.mark.parametrize("options", [{"num_beams": 1}, {"temperature": 1.5, "seed": 3, "n": 2}, {}])
def test_a_stream_says_what_an_answer_at_once_does(client: httpx.Client, model: str, options: dict[str, Any]) -> None:
    url = {"url": f"data:image/png;base64,{b64(EXAMPLE)}"}
    message = {"role": "user", "content": [{"type": "image_url", "image_url": url}]}
    body = {"model": model, "messages": [message], **options}
    whole = client.post("/v1/chat/completions", json=body).json()
    told = events(client.post("/v1/chat/completions", json=body | {"stream": True}).text)
    number = options.get("n", 1)
    assert texts(told, number) == [one["message"]["content"] for one in whole["choices"]]
    assert (len(pieces(told)) > 3 * number) is bool(options)
    if not options.get("seed"):
        assert texts(told) == [CAPTION]


# --- promise 1 ------------------------------------------------------------------------------------------------------

Body = tuple[str, dict[str, Any]]


def mixed_requests(number: int, num_images: int) -> list[Body]:
    """All tasks by turns, of both models, questions of many lengths, each image several times."""
    rng = Random("mixed")
    scenes = [random_scene(rng, 1 + index % 3) for index in range(num_images)]
    bodies: list[Body] = []
    for index in range(number):
        scene, pixels = rng.choice(scenes)
        image = {"model": ("demo", "demo-blip2")[index // 5 % 2], "image": b64(png(pixels))}
        asked: dict[str, Any] = {"question": [random_question(rng, scene)[0] for _ in range(1 + index % 3)]}
        if image["model"] == "demo-blip2" and index % 3:
            asked["history"] = [{"question": "what shape is it?", "answer": "circle"}] * (index % 3)
        if index % 4 == 0:
            asked["candidates"] = ["red", "green rectangle", "yes", "top left"]
        texts = [str(describe(scene)), str(random_caption(rng, scene)), "a red circle"]
        bodies.append(
            (
                ("/caption", image | {"num_captions": 1 + index % 3}),
                ("/vqa", image | asked),
                ("/match", image | {"text": texts}),
                ("/embed", image | {"text": texts}),
                ("/localize", image | {"model": "demo", "text": texts[0], "tokens": True}),  # the other has it not
            )[index % 5]
        )
    return bodies


def ask(bodies: list[Body], num_at_a_time: int) -> tuple[list[Any], dict[str, float]]:
    """The answers of a service of their own, and its counts of encoded images and of device calls."""

    async def every() -> tuple[list[Any], dict[str, float]]:
        settings = {"profile": "demo-shapes", "dtype": "fp32", "device": "cpu", "threads": 1}
        async with serving(load_models, **settings) as (client, app):
            await until_ready(client)
            permits = asyncio.Semaphore(num_at_a_time)

            async def one(path: str, body: dict[str, Any]) -> Any:
                async with permits:
                    response = await client.post(path, json=body)
                    assert response.status_code == 200
                    return response.json()

            answers = await asyncio.gather(*(one(*body) for body in bodies))
            counts = dict.fromkeys(("encode_sum", "encode_count", "score_sum", "score_count"), 0.0)
            for metric in app.state.service.metrics.registry.collect():
                for sample in metric.samples:
                    name = f"{sample.labels.get('op')}_{sample.name.rpartition('_')[2]}"
                    if metric.name == "blip_batch_size" and name in counts:
                        counts[name] += sample.value
            return answers, counts

    return asyncio.run(every())


def assert_same(ours: Any, expected: Any) -> None:
    """Texts equal, numbers within 1e-4."""
    if isinstance(expected, float):
        assert ours == pytest.approx(expected, abs=1e-4)
    elif isinstance(expected, dict):
        assert ours.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(ours[key], value)
    elif isinstance(expected, list):
        for one, other in zip(ours, expected, strict=True):
            assert_same(one, other)
    else:
        assert ours == expected


def test_64_mixed_requests_at_once_equal_one_at_a_time() -> None:
    bodies = mixed_requests(64, num_images=20)
    num_images = len({body["image"] for _, body in bodies})
    alone, _ = ask(bodies, num_at_a_time=1)
    together, counts = ask(bodies, num_at_a_time=64)
    assert_same(together, alone)
    assert counts["encode_sum"] == num_images < len(bodies)  # both families have one tower
    assert counts["encode_count"] < counts["encode_sum"]
    assert counts["score_count"] < counts["score_sum"] / 2


def test_more_of_what_they_know_at_once_equals_one_at_a_time() -> None:
    """CapFilt, likelihoods, states and videos, among captions."""
    rng = Random("more")
    scenes = [random_scene(rng, 1 + index % 3) for index in range(12)]
    shown = [b64(png(pixels)) for _, pixels in scenes]
    frames = [Image.fromarray(pixels) for _, pixels in scenes]
    animation = b64(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    bodies: list[Body] = []
    for index, (scene, _) in enumerate(scenes):
        model = {"model": ("demo", "demo-blip2")[index % 2]}
        texts = [str(describe(scene)), str(random_caption(rng, scene)), "a red circle"]
        image, several = (
            {"image": shown[index]},
            {"images": [shown[(index + more) % 12] for more in range(1 + index % 8)]},
        )
        bodies += [
            ("/match", model | several | {"text": texts, "head": "lm"}),
            ("/match", several | {"text": texts, "video": True}),
            ("/match", {"image": animation, "text": texts[:1], "video": True}),
            ("/embed", several | {"text": texts, "video": True}),
            ("/embed", model | image | {"text": texts, "space": "multimodal"}),
            ("/embed", model | several | {"space": "image", "pooling": ("none", "mean")[index % 2]}),
            ("/embed", model | {"text": texts, "space": "text", "pooling": ("mean", "none")[index % 2]}),
            ("/capfilt", model | image | {"text": texts, "num_captions": 2, "seed": index}),
            ("/caption", model | image),
        ]
    alone, _ = ask(bodies, num_at_a_time=1)
    together, counts = ask(bodies, num_at_a_time=64)
    assert_same(together, alone)
    assert counts["score_count"] < counts["score_sum"] / 2
    assert len(bodies) == 108


def test_blip2_has_no_video(client: httpx.Client) -> None:
    response = client.post("/match", json={"model": "demo-blip2", "image": b64(EXAMPLE), "text": "a", "video": True})
    assert (response.status_code, "no method" in response.json()["detail"]) == (422, True)
