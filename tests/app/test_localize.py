"""POST /localize: numbers or a picture, over a model that finds colours; and over the demo, which finds shapes."""

from __future__ import annotations

import asyncio
import io
import sys
from random import Random
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from app.decoding.turbo import TURBO
from app.engine.batching import MOST_OF_OP, Kind
from app.main import load_models
from app.wire.accept import quality
from app.wire.answers import LocalizeAnswer
from models.base import Op
from tests.app.conftest import Shared
from tests.app.support import (
    RED,
    Lab,
    b64,
    encoded,
    entered,
    kind,
    lab,
    picture,
    run,
    serving,
    until_ready,
    waiting,
)
from training.scenes import Box, png, random_scene

PICTURE = {"accept": "image/png"}
HOTTEST = tuple(TURBO[-3:])


def half_red(size: tuple[int, int] = (60, 40)) -> Image.Image:
    """On its left, and white on its right."""
    whole = picture("white", size)
    whole.paste("red", (0, 0, size[0] // 2, size[1]))
    return whole


def drawn(response: httpx.Response) -> Image.Image:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    assert int(response.headers["content-length"]) == len(response.content)
    image = Image.open(io.BytesIO(response.content))
    image.load()
    assert (image.format, image.mode) == ("PNG", "RGB")
    return image


def pixels(image: Image.Image) -> Any:
    return np.asarray(image, dtype=int)


# --- JSON ---


def test_a_map(shared: Shared) -> None:
    response = shared.ask("/localize", encoded(half_red()), text=" red ")
    answer = response.json()
    assert response.headers["content-type"] == "application/json"
    assert TypeAdapter(LocalizeAnswer).validate_python(answer, strict=True) == answer
    assert (answer["model"], answer["text"], answer["grid"]) == ("fake", "red", [4, 4])
    heat = np.array(answer["map"])
    assert heat.shape == (4, 4)
    assert (heat[:, :2] > 0.9).all()
    assert (heat[:, 2:] < 0.1).all()
    matched = shared.ask("/match", encoded(half_red()), text="red").json()["scores"][0][0]
    assert answer["itm"] == matched["itm"]
    assert "tokens" not in answer


def test_a_map_of_each_token(shared: Shared) -> None:
    answer = shared.ask("/localize", encoded(half_red()), text="a red white", tokens=True).json()
    assert [one["token"] for one in answer["tokens"]] == ["a", "red", "white"]
    maps = np.array([one["map"] for one in answer["tokens"]])
    assert np.allclose(maps.mean(0), answer["map"])
    assert not maps[0].any()
    assert maps[1, 0].argmax() < 2 <= maps[2, 0].argmax()


def test_models_tell_the_layers(shared: Shared) -> None:
    told = shared.get("/models").json()["models"][0]["tasks"]["localize"]
    assert (told["layer"], told["layers"]) == (0, 3)


# --- the picture ---


@pytest.mark.parametrize(
    ("form", "mode"), [("PNG", "RGB"), ("GIF", "P"), ("JPEG", "L"), ("TIFF", "I;16"), ("PNG", "1")]
)
def test_the_picture_at_its_own_size(shared: Shared, form: str, mode: str) -> None:
    upload = encoded(half_red((613, 401)).convert("L" if mode == "I;16" else mode).convert(mode), form)
    response = shared.post("/localize", files={"image": upload}, data={"text": "red"}, headers=PICTURE)
    assert drawn(response).size == (613, 401)


def test_hot_is_dark_red_and_cold_stays_as_it_is(shared: Shared) -> None:
    upload = encoded(half_red())
    response = shared.post("/localize", files={"image": upload}, data={"text": "red"}, headers=PICTURE)
    values = pixels(drawn(response))
    assert np.abs(values[:, :10] - HOTTEST).max() <= 2
    assert np.abs(values[:, -10:] - 255).max() <= 2
    assert float(response.headers["x-blip-itm"]) == shared.ask("/localize", upload, text="red").json()["itm"]


def test_upright_as_viewers_show_it(shared: Shared) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # its left is shown at the top
    upload = encoded(half_red(), "JPEG", exif=exif, quality=95)
    image = drawn(shared.post("/localize", files={"image": upload}, data={"text": "red"}, headers=PICTURE))
    assert image.size == (40, 60)
    assert not image.getexif()
    values = pixels(image)
    assert np.abs(values[:10] - HOTTEST).max() <= 4
    assert np.abs(values[-10:] - 255).max() <= 4


def test_what_is_nowhere_leaves_the_picture_as_it_is(shared: Shared) -> None:
    upload = half_red()
    response = shared.post("/localize", files={"image": encoded(upload)}, data={"text": "dog"}, headers=PICTURE)
    assert (pixels(drawn(response)) == pixels(upload)).all()


def test_transparent_is_white(shared: Shared) -> None:
    clear = picture((0, 0, 0, 0), (20, 10), "RGBA")
    response = shared.post("/localize", files={"image": encoded(clear)}, data={"text": "dog"}, headers=PICTURE)
    assert (pixels(drawn(response)) == 255).all()


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/json, image/png", "application/json"),
        ("text/html", "application/json"),
        ("image/png", "image/png"),
        ("IMAGE/PNG; q=0.8, application/json;q=0.5", "image/png"),
        ("image/*, */*;q=0.8", "image/png"),
        ("image/png;q=0.2, */*", "application/json"),
        ("image/png;q=nonsense", "application/json"),
        (",;,=;q", "application/json"),
    ],
)
def test_accept(shared: Shared, accept: str | None, media: str) -> None:
    headers = {} if accept is None else {"accept": accept}
    response = shared.post("/localize", files={"image": RED}, data={"text": "red"}, headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (200, media)


def test_the_most_specific_range_counts() -> None:
    accept = "image/png;q=0.1, image/*;q=0.5, */*;q=2, text/html;level=1;q=-1"
    types = ("image/png", "image/gif", "text/plain", "text/html")
    assert [quality(accept, one) for one in types] == [0.1, 0.5, 1.0, 0.0]
    assert quality("", "image/png") == 0


# --- what is refused ---


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"text": None}, "text: Field required"),
        ({"text": " "}, "text: is empty"),
        ({"text": ["red", "blue"]}, "text"),
        ({"text": "x" * 10_001}, "text: has 10001 characters, at most 10000"),
        ({"layer": -1}, "layer"),
        ({"layer": 2}, "layer: must be 0 to 1"),
        ({"layer": 10**30}, "layer"),
        ({"layer": "first"}, "layer"),
        ({"tokens": "all"}, "tokens"),
        ({"colour": "jet"}, "unknown field 'colour'"),
        ({"model": "nobody"}, "No such model"),
    ],
)
def test_bad_input(shared: Shared, fields: dict[str, Any], words: str) -> None:
    response = shared.ask("/localize", **fields)
    assert response.status_code == (404 if "model" in fields else 422)
    assert words in response.json()["detail"]


@pytest.mark.parametrize(("number", "words"), [(0, "image: is missing"), (2, "image: 2 given, at most 1 allowed")])
def test_one_picture(shared: Shared, number: int, words: str) -> None:
    response = shared.post("/localize", json={"images": [b64(RED)] * number, "text": "red"})
    assert (kind(response), response.json()["detail"]) == ((422, "invalid-input"), words)


def test_tokens_are_not_ignored_in_a_picture(shared: Shared) -> None:
    fields = {"text": "red", "tokens": "true"}
    response = shared.post("/localize", files={"image": RED}, data=fields, headers=PICTURE)
    assert kind(response) == (422, "invalid-input")
    assert "tokens: only in JSON" in response.json()["detail"]


def test_a_broken_picture_is_told_in_json(shared: Shared) -> None:
    response = shared.post("/localize", files={"image": RED[:60]}, data={"text": "red"}, headers=PICTURE)
    assert kind(response) == (422, "bad-image")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_other_methods(shared: Shared, method: str) -> None:
    response = shared.request(method, "/localize", headers=PICTURE)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


# --- the op ---


def test_four_at_a_time_and_by_layer() -> None:
    async def test() -> None:
        async with lab() as there:
            await there.ask("/localize")  # the features are there
            there.heads.calls.clear()
            with there.heads.held() as hold:
                first = there.begin("/caption")
                await entered(hold)
                layers = [0] * 6 + [1]
                tasks = [there.begin("/localize", layer=layer) for layer in layers]
                await waiting(there.service, len(layers))
                hold.release()
                answers = await asyncio.gather(first, *tasks)
            assert [answer.status_code for answer in answers] == [200] * 8
            assert MOST_OF_OP[Op.LOCALIZE] == 4
            assert sorted(there.heads.sizes("localize")) == [1, 2, 4]

    run(test)


def test_admitted_by_its_work() -> None:
    """Its rate is its own: what the device takes for one counts against the deadline of the next."""

    async def test() -> None:
        async with lab() as there:
            await there.ask("/localize")
            with there.heads.held() as hold:
                one = there.begin("/localize")
                await entered(hold)
                assert there.admission.ledger.unfinished == {Kind("fake-heads", Op.LOCALIZE): 1}
                hold.release()
                assert (await one).status_code == 200
            assert not there.admission.ledger.unfinished
            assert there.count("stage_seconds_count", stage="localize") == 2
            assert there.count("batch_size_count", unit="fake-heads", op="localize") == 2

    run(test)


async def ask_for_picture(there: Lab, upload: bytes) -> httpx.Response:
    return await there.client.post("/localize", files={"image": upload}, data={"text": "red"}, headers=PICTURE)


def test_a_picture_needs_room_for_its_answer() -> None:
    """480 kB may come of an upload of a kilobyte: there is room for it, or none now, or none ever."""

    async def test() -> None:
        upload = encoded(half_red((400, 400)))
        refusals = ((600_000, 0, None), (600_000, 200_000, (429, "bytes-full")), (400_000, 0, (413, "too-many-bytes")))
        for room, of_others, refusal in refusals:
            async with lab(max_inflight_bytes=room, max_body_bytes=100_000) as there:
                there.admission.ledger.add_bytes(of_others)
                response = await ask_for_picture(there, upload)
                assert response.status_code == 200 if refusal is None else kind(response) == refusal
                assert there.admission.ledger.bytes == of_others
                assert (await there.ask("/localize", upload)).status_code == 200  # as JSON

    run(test)


def test_stages_of_a_picture() -> None:
    async def test() -> None:
        async with lab() as there:
            response = await ask_for_picture(there, RED)
            assert response.status_code == 200
            for stage in ("decode", "encode", "localize", "draw", "total"):
                assert f"{stage};dur=" in response.headers["server-timing"]
            assert there.count("stage_seconds_count", stage="draw") == 1

    run(test)


# --- the demo ---


def overlaps(heat: Any, box: Box, size: int = 64) -> bool:
    """Whether the hottest patch and the box have a part in common."""
    side = size / len(heat)
    row, column = divmod(int(heat.argmax()), len(heat))
    across = column * side < box.right and (column + 1) * side > box.left
    return across and row * side < box.bottom and (row + 1) * side > box.top


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_demo_finds_shapes(dtype: str) -> None:
    """Of two in each picture, both: 98 % at least; and not by chance: seldom where the other one is."""

    async def test() -> None:
        rng = Random("localize")
        scenes = [random_scene(rng, 2) for _ in range(30)]
        asked = [(png(image), shape, other) for scene, image in scenes for shape, other in both(scene.shapes)]
        async with serving(load_models, profile="demo-shapes", dtype=dtype, device="cpu", threads=1) as (client, _):
            await until_ready(client)
            bodies = [{"image": b64(image), "text": f"a {shape.name}"} for image, shape, _ in asked]
            answers = await asyncio.gather(*(client.post("/localize", json=body) for body in bodies))
            heats = [np.array(answer.json()["map"]) for answer in answers]
            found = [overlaps(heat, shape.box) for heat, (_, shape, _) in zip(heats, asked, strict=True)]
            mistaken = [overlaps(heat, other.box) for heat, (_, _, other) in zip(heats, asked, strict=True)]
            assert np.mean(found) >= 0.98
            assert np.mean(mistaken) < 0.1

    run(test)


def both(shapes: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    one, other = shapes
    return [(one, other), (other, one)]


@pytest.mark.skipif(sys.platform != "linux", reason="as the decoders' tests")
def test_who_cannot_says_why() -> None:
    async def test() -> None:
        for dtype, model, words in (
            ("fp32", "demo-blip2", "BLIP-2's authors give no method"),
            ("int8", "demo", "products in int8 have no gradient"),
            ("int8", None, "products in int8 have no gradient; served in bf16 or fp32 it has; BLIP-2's authors"),
        ):
            async with serving(load_models, profile="demo-shapes", dtype=dtype, device="cpu", threads=1) as (client, _):
                await until_ready(client)
                response = await client.post("/localize", json={"image": b64(RED), "text": "red", "model": model})
                assert kind(response) == (422, "invalid-input")
                assert response.json()["detail"].startswith("model: does not have the task localize: ")
                assert words in response.json()["detail"]
                served = (await client.get("/models")).json()["models"]
                able = [one["name"] for one in served if "localize" in one["tasks"]]
                assert able == (["demo"] if dtype == "fp32" else [])

    run(test)
