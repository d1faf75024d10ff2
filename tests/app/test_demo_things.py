"""What `make run` serves: every endpoint answers sensibly about the page's example scenes, without any download."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from bench.service import running_service
from models.catalog import read_catalog
from tests.app.support import b64
from training.scenes import Box
from training.things.captions import describe
from training.things.examples import EXAMPLES, Place
from training.things.measure import overlap
from training.things.names import clean_names, noun
from training.things.scenes import UNIT, Scene, Thing
from training.things.words import Words

PAGE = Path("app/page")
FOLDER = Path("models/checkpoints/demo-things")
SAID = {
    "dog-and-pizza": "a dog to the left of a slice of pizza",
    "red-car": "a red car",
    "cat-tree-umbrella": "a cat, a tree and an umbrella",
    "two-ducks": "two ducks",
}
ANSWERS = {
    "dog-and-pizza": ["slice of pizza", "no", "two"],
    "red-car": ["car", "red", "no"],
    "cat-tree-umbrella": ["cat and tree and umbrella", "bottom left", "tree"],
    "two-ducks": ["two", "no", "two ducks"],
}
EXAMPLE = {one["name"]: one for one in json.loads((PAGE / "examples.json").read_text())}
THINGS = {"model": "demo-things"}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """Of the process that `make run` starts."""
    with running_service(profile="demo") as service, httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


def picture(name: str) -> bytes:
    path: str = EXAMPLE[name]["picture"]
    return (PAGE / path.removeprefix("ui/")).read_bytes()


def ask(client: httpx.Client, path: str, name: str, **body: Any) -> Any:
    return client.post(path, json={"image": b64(picture(name)), **body}).raise_for_status().json()


def box_of(place: Place) -> Box:
    return Box(place.left, place.top, place.left + place.length, place.top + place.length)


def test_the_page_offers_what_is_drawn_first() -> None:
    assert list(EXAMPLE)[: len(EXAMPLES)] == list(EXAMPLES) == list(SAID) == list(ANSWERS)
    assert {name for one in EXAMPLE.values() for name in one["models"]} == set(read_catalog().profiles["demo"])
    assert picture("dog-and-pizza") == (FOLDER / "example.webp").read_bytes()


def test_only_the_first_of_the_texts_is_true() -> None:
    colors = {"car": "red"}
    parser = Words(tuple(map(noun, clean_names()))).parser
    for name, example in EXAMPLES.items():
        boxes: dict[str, list[Box]] = {}
        for place in example.places:
            boxes.setdefault(place.name, []).append(box_of(place))
        things = (Thing(noun(one), colors.get(one), tuple(found)) for one, found in boxes.items())
        scene = Scene(tuple(sorted(things, key=lambda thing: thing.box.center[0])))
        assert [parser.entails(text, scene) for text in EXAMPLE[name]["texts"]] == [True, False, False]
        assert str(describe(scene)) == SAID[name]


def test_it_is_small() -> None:
    sizes = {path.parent.name: path.stat().st_size for path in FOLDER.glob("*/model.safetensors")}
    assert sum(sizes[name] for name in ("caption", "vqa", "match")) <= 16e6
    assert sum(sizes[name] for name in ("clip", "clipseg", "owl")) <= 8e6
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 24e6


def test_it_says_that_it_knows_drawings(client: httpx.Client) -> None:
    served = client.get("/models").json()["models"]
    assert [model["name"] for model in served] == list(read_catalog().profiles["demo"])
    assert all("not photos" in model["note"] for model in served)


def test_every_endpoint_is_one_that_is_asked_below(client: httpx.Client) -> None:
    asked = {"caption", "vqa", "match", "embed", "capfilt", "classify", "localize", "segment", "detect", "rerank"}
    doors = {f"v1/{door}" for door in ("rerank", "chat/completions", "responses", "embeddings")}
    assert {path.strip("/") for path in client.get("/").json()["tasks"]} == asked | doors


@pytest.mark.parametrize("name", SAID)
def test_captions(client: httpx.Client, name: str) -> None:
    [caption] = ask(client, "/caption", name, **THINGS)["captions"]
    assert caption["text"] == SAID[name]


@pytest.mark.parametrize("name", SAID)
def test_questions(client: httpx.Client, name: str) -> None:
    answers = ask(client, "/vqa", name, **THINGS, question=EXAMPLE[name]["questions"])["answers"]
    assert [one["answer"] for one in answers] == ANSWERS[name]


@pytest.mark.parametrize("name", SAID)
def test_what_is_true_comes_first(client: httpx.Client, name: str) -> None:
    """The first text and label of each example is true, the other texts are not."""
    example = EXAMPLE[name]
    [scores] = ask(client, "/match", name, **THINGS, text=example["texts"])["scores"]
    assert scores[0]["itm"] > 0.5 > max(one["itm"] for one in scores[1:])
    for model in ("demo-things", "demo-things-clip"):
        [row] = ask(client, "/classify", name, model=model, label=example["labels"], template=["{}"])["classes"]
        assert row[0]["label"].partition(" ")[2] in SAID[name], model
    for path in ("/rerank", "/v1/rerank"):
        query = {"image": b64(picture(name))}
        body = {**THINGS, "query": query, "documents": example["texts"]}
        results = client.post(path, json=body).raise_for_status().json()["results"]
        assert results[0]["index"] == 0
    [image] = ask(client, "/capfilt", name, **THINGS, text=example["texts"])["images"]
    assert [one["kept"] for one in image["texts"] if one["source"] == "web"] == [True, False, False]


@pytest.mark.parametrize("name", SAID)
def test_places(client: httpx.Client, name: str) -> None:
    """What is located, cut out and framed is where it was drawn."""
    example = EXAMPLE[name]
    noun = example["locate"].partition(" ")[2]
    boxes = [box_of(place) for place in EXAMPLES[name].places if place.name == noun]

    heat = np.array(ask(client, "/localize", name, **THINGS, text=example["locate"])["map"])
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    x, y = UNIT * (column + 0.5) / heat.shape[1], UNIT * (row + 0.5) / heat.shape[0]
    assert any(box.left <= x <= box.right and box.top <= y <= box.bottom for box in boxes)

    [segment] = ask(client, "/segment", name, text=example["locate"])["segments"]
    with Image.open(io.BytesIO(base64.b64decode(segment["mask"]))) as mask:
        cut = np.asarray(mask.convert("L")) >= 128
    inside = np.zeros_like(cut)
    scale = cut.shape[0] / UNIT
    for box in boxes:
        inside[int(box.top * scale) : int(box.bottom * scale), int(box.left * scale) : int(box.right * scale)] = True
    assert (cut & inside).sum() >= 0.9 * cut.sum() > 0

    found = ask(client, "/detect", name, text=example["things"])["detections"]
    best = max((one for one in found if one["text"] == example["locate"]), key=lambda one: one["score"])
    with Image.open(io.BytesIO(picture(name))) as shown:
        edges = [UNIT / shown.width * edge for edge in best["box"]]
    assert max(overlap(Box(*edges), box) for box in boxes) >= 0.4  # a thing is less than its square


def test_embeddings(client: httpx.Client) -> None:
    """Of all scenes and their captions: each text is nearest to its own picture."""
    for model in ("demo-things", "demo-things-clip"):
        body = {"model": model, "images": [b64(picture(name)) for name in SAID], "text": list(SAID.values())}
        found = client.post("/embed", json=body).raise_for_status().json()
        images, texts = (np.array([one["embedding"] for one in found[kind]]) for kind in ("images", "texts"))
        assert (texts @ images.T).argmax(1).tolist() == list(range(len(SAID)))


def test_the_doors_of_openai(client: httpx.Client) -> None:
    url = f"data:image/webp;base64,{b64(picture('red-car'))}"
    content = [{"type": "text", "text": "what color is the car?"}, {"type": "image_url", "image_url": {"url": url}}]
    body = {**THINGS, "messages": [{"role": "user", "content": content}]}
    told = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    assert told["choices"][0]["message"]["content"] == "red"
    asked = [{"type": "input_text", "text": "what is this?"}, {"type": "input_image", "image_url": url}]
    body = {**THINGS, "input": [{"role": "user", "content": asked}]}
    told = client.post("/v1/responses", json=body).raise_for_status().json()
    assert told["output"][0]["content"][0]["text"] == "car"
    told = client.post("/v1/embeddings", json={**THINGS, "input": "a red car"}).raise_for_status().json()
    assert len(told["data"][0]["embedding"]) == 64
