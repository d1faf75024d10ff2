"""CapFilt, over a model that knows colours, and over the demo's."""

from __future__ import annotations

from random import Random
from typing import Any

import httpx
import pytest

from app.engine.batching import Kind
from app.wire.capfilt import CapfiltAnswer
from bench.service import running_service
from models.base import Op
from models.inputs import CaptionInput, PairInput, Sampling
from tests.app.conftest import Shared
from tests.app.support import BLUE, GREEN, RED, b64, entered, lab, run
from tests.app.test_tasks import checked
from training.captions import Phrase
from training.scenes import COLORS, KINDS, Scene, png, random_scene

WEB = ["a red thing", "a blue thing", "buy one, get one free"]


def texts_of(response: Any) -> list[list[dict[str, Any]]]:
    return [image["texts"] for image in checked(response, CapfiltAnswer)["images"]]


def test_web_texts_and_synthetic_captions_are_judged(shared: Shared) -> None:
    shared.lab.heads.calls.clear()
    [texts] = texts_of(shared.ask("/capfilt", text=WEB, num_captions=2, seed=1))
    assert [one["text"] for one in texts[:3]] == WEB
    assert [one["source"] for one in texts] == ["web"] * 3 + ["synthetic"] * 2
    assert [one["kept"] for one in texts[:3]] == [True, False, False]
    [[pairs]] = [shared.ask("/match", text=[one["text"] for one in texts], head="itm").json()["scores"]]
    assert [one["itm"] for one in texts] == [pair["itm"] for pair in pairs]
    [asked] = {one for call in shared.lab.heads.calls for one in call.payloads if isinstance(one, CaptionInput)}
    assert asked.settings.num_sequences == 2
    assert asked.settings.sampling == Sampling(top_p=0.9, seed=1)


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 1.0])
def test_the_threshold_and_what_is_returned(shared: Shared, threshold: float) -> None:
    ask = {"text": WEB, "num_captions": 3, "seed": 2, "threshold": threshold}
    every, kept, best = (texts_of(shared.ask("/capfilt", keep=keep, **ask))[0] for keep in ("all", "filtered", "best"))
    assert [one["kept"] for one in every] == [one["itm"] >= threshold for one in every]
    assert kept == [one for one in every if one["kept"]]
    assert best == [max(every, key=lambda one: one["itm"])]


def test_a_seed_repeats_the_captions(shared: Shared) -> None:
    one, again, other = (texts_of(shared.ask("/capfilt", num_captions=8, seed=seed)) for seed in (1, 1, 2))
    assert one == again != other


@pytest.mark.parametrize(
    ("texts", "of_each"),
    [
        (["a red thing", "a blue thing"], [["a red thing"], ["a blue thing"]]),
        ([["red", "blue"], []], [["red", "blue"], []]),
        (["red", ["blue", "green"]], [["red"], ["blue", "green"]]),
        ([], [[], []]),
        (None, [[], []]),
    ],
)
def test_texts_of_several_images(shared: Shared, texts: Any, of_each: list[list[str]]) -> None:
    answer = texts_of(shared.post("/capfilt", json={"images": [b64(RED), b64(BLUE)], "text": texts}))
    assert [[one["text"] for one in image if one["source"] == "web"] for image in answer] == of_each
    assert [len(image) - len(web) for image, web in zip(answer, of_each, strict=True)] == [1, 1]


@pytest.mark.parametrize("texts", ["red", ["red"], [["red"]]])
def test_texts_of_one_image(shared: Shared, texts: Any) -> None:
    [image] = texts_of(shared.ask("/capfilt", text=texts))
    assert [one["text"] for one in image if one["source"] == "web"] == ["red"]


def test_a_form_gives_each_image_its_text(shared: Shared) -> None:
    files = [("image", ("a.png", one)) for one in (RED, BLUE)]
    answer = texts_of(shared.post("/capfilt", files=files, data={"text": ["a red thing", "a blue thing"]}))
    assert [image[0]["kept"] for image in answer] == [True, True]
    raw = shared.post("/capfilt?text=red&text=blue", content=RED, headers={"content-type": "image/png"})
    assert [one["text"] for one in texts_of(raw)[0][:2]] == ["red", "blue"]


def test_equal_texts_of_an_image_are_scored_once(shared: Shared) -> None:
    shared.lab.heads.calls.clear()
    answer = texts_of(shared.post("/capfilt", json={"images": [b64(RED), b64(GREEN)], "text": [["red"] * 5, ["red"]]}))
    assert [[one["text"] for one in image[:-1]] for image in answer] == [["red"] * 5, ["red"]]
    pairs = [one for call in shared.lab.heads.calls for one in call.payloads if isinstance(one, PairInput)]
    assert pairs.count(PairInput("red")) == 2


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"images": [b64(RED)] * 2, "text": "red"}, "1 given for 2 images"),
        ({"images": [b64(RED)] * 2, "text": ["red"] * 3}, "3 given for 2 images"),
        ({"image": b64(RED), "text": [["red"], ["blue"]]}, "2 given for 1 images"),
        ({"image": b64(RED), "text": ["red", ""]}, "text"),
        ({"image": b64(RED), "text": [["red", " "]]}, "text: 0: 1"),
        ({"image": b64(RED), "text": [5]}, "text"),
        ({"image": b64(RED), "text": [[["red"]]]}, "text"),
        ({"image": b64(RED), "text": {"a": "red"}}, "text"),
        ({"image": b64(RED), "text": ["red"] * 1025}, "1025 pairs"),
        ({"image": b64(RED), "text": ["red"] * 1024}, "1025 pairs"),
        ({"image": b64(RED), "text": "x" * 10_001}, "10001 characters"),
        ({"images": [b64(RED)] * 64, "text": [["red"] * 16] * 64}, "1088 pairs"),
        ({"image": b64(RED), "num_captions": 0}, "num_captions"),
        ({"image": b64(RED), "num_captions": 9}, "num_captions"),
        ({"image": b64(RED), "threshold": 1.5}, "threshold"),
        ({"image": b64(RED), "keep": "some"}, "keep"),
        ({"image": b64(RED), "seed": -1}, "seed"),
        ({"image": b64(RED), "sample": True}, "sample"),
        ({"text": "red"}, "image: is missing"),
    ],
)
def test_bad_fields(shared: Shared, fields: dict[str, Any], word: str) -> None:
    calls = len(shared.lab.heads.calls)
    response = shared.post("/capfilt", json=fields)
    assert response.status_code == 422
    assert word in response.json()["detail"]
    assert len(shared.lab.heads.calls) == calls


def test_its_work_is_counted_by_checkpoint_and_ends() -> None:
    async def test() -> None:
        async with lab() as there:
            with there.heads.held() as hold:
                asking = there.begin("/capfilt", text=WEB, num_captions=2)
                await entered(hold)
                work = {Kind("fake-heads", Op.GENERATE): 1, Kind("fake-heads", Op.SCORE, PairInput): 5}
                assert there.admission.ledger.unfinished == work
            assert (await asking).status_code == 200
            assert not there.admission.ledger.unfinished
            assert there.count("requests_total", task="capfilt", model="fake", code="200") == 1

    run(test)


# --- the demo's models ---


def one_shape(rng: Random) -> tuple[Scene, bytes]:
    scene, pixels = random_scene(rng, 1)
    return scene, png(pixels)


def changed(rng: Random, scene: Scene) -> str:
    """A true caption with one word changed."""
    (shape,) = scene.shapes
    if rng.random() < 0.5:
        return str(Phrase(rng.choice([color for color in COLORS if color != shape.color]), shape.kind))
    return str(Phrase(shape.color, rng.choice([kind for kind in KINDS if kind != shape.kind])))


@pytest.mark.parametrize("model", ["demo", "demo-blip2"])
def test_the_demo_keeps_what_is_true(model: str) -> None:
    """200 pictures of one shape, each with its text and those of two others."""
    rng = Random("capfilt")
    scenes = [one_shape(rng) for _ in range(200)]
    names = [scene.shapes[0].name for scene, _ in scenes]
    others = [rng.sample([other for other in names if other != name], 2) for name in names]
    texts = [
        [*(f"a {one}" for one in (name, *two)), changed(rng, scene)]
        for name, two, (scene, _) in zip(names, others, scenes, strict=True)
    ]
    kept = []
    with (
        running_service(profile="demo-shapes", dtype="fp32") as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        for start in range(0, 200, 40):
            body = {
                "model": model,
                "images": [b64(picture) for _, picture in scenes[start : start + 40]],
                "text": texts[start : start + 40],
                "seed": 1,
            }
            answer = client.post("/capfilt", json=body).json()
            kept += [[one["kept"] for one in image["texts"]] for image in answer["images"]]
    true, false = [one[0] for one in kept], [each for one in kept for each in one[1:3]]
    assert (len(true), len(false)) == (200, 400)
    assert sum(true) >= 0.98 * len(true)
    assert sum(false) <= 0.01 * len(false)
    assert sum(one[3] for one in kept) <= 0.05 * len(kept)  # with one word changed
    assert sum(one[4] for one in kept) >= 0.95 * len(kept)  # the captioner's own
