"""POST /segment and /detect: numbers or a picture, over a model that finds colours."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from app import regions
from app.decoding.pool import decoder_processes
from app.wire.regions import DetectAnswer, SegmentAnswer
from models.fake.runner import fake_models
from tests.app.conftest import Shared
from tests.app.support import BLUE, RED, Lab, b64, encoded, entered, kind, lab, picture, run, serving, until_ready

PICTURE = {"accept": "image/png"}
SHAPES = {"wide": (120, 40), "tall": (40, 120), "square": (64, 64), "tiny": (3, 2)}


def corner(size: tuple[int, int] = (60, 40)) -> Image.Image:
    """Red in the upper left quarter, and white elsewhere."""
    whole = picture("white", size)
    whole.paste("red", (0, 0, size[0] // 2, size[1] // 2))
    return whole


def lying(shown: Image.Image) -> bytes:
    """A JPEG whose pixels lie on their side, and whose EXIF says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(shown.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=100, subsampling=0)


def mask_of(segment: dict[str, Any]) -> Any:
    image = Image.open(io.BytesIO(base64.b64decode(segment["mask"], validate=True)))
    assert (image.format, image.mode) == ("PNG", "L")
    return np.asarray(image, dtype=int)


def drawn(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    image = Image.open(io.BytesIO(response.content))
    assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})
    return np.asarray(image, dtype=int)


# --- /segment ---


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("turned", [False, True])
def test_masks_are_as_large_as_the_picture(shared: Shared, shape: str, turned: bool) -> None:
    """And where the thing is: known by construction, whatever the shape."""
    width, height = SHAPES[shape]
    shown = corner((width, height))
    answer = shared.ask("/segment", lying(shown) if turned else encoded(shown), text=["a red one", "blue"]).json()
    assert TypeAdapter(SegmentAnswer).validate_python(answer, strict=True) == answer
    assert [one["text"] for one in answer["segments"]] == ["a red one", "blue"]
    mask = mask_of(answer["segments"][0])
    assert mask.shape == (height, width)
    if shape != "tiny":
        assert mask[: height // 4, : width // 4].min() > 240
        assert mask[3 * height // 4 :].max() < 20
        assert mask[:, 3 * width // 4 :].max() < 20
        assert answer["segments"][0]["score"] > 0.95
    assert answer["segments"][1]["score"] < 0.1


def test_one_mask_for_each_text_in_order(shared: Shared) -> None:
    answer = shared.ask("/segment", encoded(corner()), text=["white", "red", "white"]).json()
    first, second, third = answer["segments"]
    assert first == third
    assert mask_of(first)[0, 0] < 20 < 240 < mask_of(second)[0, 0]


def test_segments_drawn_over_the_picture(shared: Shared) -> None:
    shown = corner((200, 120))
    fields = {"text": ["red", "green"]}
    values = drawn(shared.post("/segment", files={"image": encoded(shown)}, data=fields, headers=PICTURE))
    height, width, _ = values.shape
    assert (width, height) == (200, 120 + 2 * 18)  # with a legend of two lines
    assert np.abs(values[:20, :40] - values[0, 0]).max() <= 3  # one colour
    assert np.abs(values[0, 0] - (255, 0, 0)).max() > 10  # which is not the picture's
    assert np.abs(values[90:118, 150:] - 255).max() <= 20
    assert len({tuple(row) for row in values[120:].reshape(-1, 3)}) > 3  # swatches and words


def test_a_small_picture_may_be_asked_for_more(shared: Shared) -> None:
    limit = shared.lab.service.settings.max_pixels
    side = int((limit / 60) ** 0.5)
    texts = [f"red {number}" for number in range(64)]
    for accept in ("application/json", "image/png"):
        upload = {"image": encoded(picture("red", (side, side)))}
        response = shared.post("/segment", files=upload, data={"text": texts}, headers={"accept": accept})
        assert kind(response) == (422, "invalid-input")
        assert f"text: 64 masks of {side} x {side} pixels, at most {limit}" in response.json()["detail"]


# --- /detect ---


@pytest.mark.parametrize("shape", ["wide", "tall", "square"])
@pytest.mark.parametrize("turned", [False, True])
def test_boxes_are_in_the_pictures_pixels(shared: Shared, shape: str, turned: bool) -> None:
    width, height = SHAPES[shape]
    shown = corner((width, height))
    upload = lying(shown) if turned else encoded(shown)
    answer = shared.ask("/detect", upload, text=["red", "blue"], threshold=0.9).json()
    assert TypeAdapter(DetectAnswer).validate_python(answer, strict=True) == answer
    boxes = {tuple(one["box"]) for one in answer["detections"]}
    across, down = width / 4, height / 4
    assert boxes == {(x * across, y * down, (x + 1) * across, (y + 1) * down) for x in (0, 1) for y in (0, 1)}
    assert {one["text"] for one in answer["detections"]} == {"red"}


def test_the_best_first_and_so_many(shared: Shared) -> None:
    every = shared.ask("/detect", encoded(corner()), text=["red", "white"], threshold=0).json()["detections"]
    assert len(every) == 16
    assert [one["score"] for one in every] == sorted((one["score"] for one in every), reverse=True)
    assert {one["text"] for one in every if one["score"] > 0.9} == {"red", "white"}
    few = shared.ask("/detect", encoded(corner()), text=["red", "white"], threshold=0, top_k=3).json()["detections"]
    assert few == every[:3]
    assert shared.ask("/detect", encoded(corner()), text="green").json()["detections"] == []


@pytest.mark.parametrize("form", ["json", "multipart"])
def test_by_an_example(shared: Shared, form: str) -> None:
    if form == "json":
        answer = shared.ask("/detect", encoded(corner()), text=None, example=b64(RED), threshold=0.9).json()
    else:
        files = {"image": encoded(corner()), "example": ("red.png", RED)}
        answer = shared.post("/detect", files=files, data={"threshold": "0.9"}).json()
    assert TypeAdapter(DetectAnswer).validate_python(answer, strict=True) == answer
    assert {one["text"] for one in answer["detections"]} == {None}
    assert {tuple(one["box"][:2]) for one in answer["detections"]} == {(0, 0), (15, 0), (0, 10), (15, 10)}


def test_boxes_that_overlap_are_one_of_an_example() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [7, 0, 17, 10], [0, 0, 10, 10]], float)
    assert regions._apart([1, 0, 2, 3], boxes, 9) == [1, 2]
    assert regions._apart([2, 0, 1], boxes, 1) == [2]
    with np.errstate(all="raise"):
        assert regions._apart([0, 1], np.zeros((2, 4)), 9) == [0, 1]  # points


def test_detections_drawn_over_the_picture(shared: Shared) -> None:
    shown = corner((200, 120))
    fields = {"text": "red", "threshold": "0.9", "top_k": "1"}
    values = drawn(shared.post("/detect", files={"image": encoded(shown)}, data=fields, headers=PICTURE))
    assert values.shape == (120, 200, 3)
    changed = np.argwhere((values != np.asarray(shown)).any(2))
    assert changed.min(0).tolist() == [0, 0]
    assert changed[:, 0].max() == 30  # its box is a quarter high
    [detection] = shared.ask("/detect", encoded(shown), **fields | {"threshold": 0.9, "top_k": 1}).json()["detections"]
    assert detection["box"] == [0, 0, 50, 30]


def test_by_a_raw_body(shared: Shared) -> None:
    headers = {"content-type": "image/png"}
    for path, name in (("/segment", "segments"), ("/detect", "detections")):
        answer = shared.post(path, content=encoded(corner()), params={"text": ["red", "blue"]}, headers=headers)
        assert answer.json()[name]


# --- what is refused ---


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("/segment", {"text": []}, "text"),
        ("/segment", {"text": None}, "text: Field required"),
        ("/segment", {"text": ["red", " "]}, "text: 1: is empty"),
        ("/segment", {"text": ["red"] * 65}, "text: 65 items, at most 64"),
        ("/segment", {"threshold": 0.1}, "unknown field 'threshold'"),
        ("/segment", {"example": b64(RED)}, "unknown field 'example'"),
        ("/segment", {"model": "nobody"}, "No such model"),
        ("/detect", {"text": None}, "text, example: one of the two"),
        ("/detect", {"text": [], "example": None}, "text, example: one of the two"),
        ("/detect", {"example": b64(RED)}, "text, example: one of the two"),
        ("/detect", {"text": ["red"] * 65}, "text: 65 items, at most 64"),
        ("/detect", {"text": "x" * 10_001}, "text: 0: has 10001 characters"),
        ("/detect", {"threshold": 1.5}, "threshold"),
        ("/detect", {"threshold": "much"}, "threshold"),
        ("/detect", {"top_k": 0}, "top_k"),
        ("/detect", {"top_k": 1001}, "top_k"),
        ("/detect", {"text": None, "example": 5}, "example: must be one image"),
        ("/detect", {"text": None, "example": [b64(RED)]}, "example: must be one image"),
        ("/detect", {"text": None, "example": ""}, "example: is empty"),
    ],
)
def test_bad_input(shared: Shared, path: str, fields: dict[str, Any], words: str) -> None:
    response = shared.ask(path, **fields)
    assert response.status_code == (404 if "model" in fields else 422)
    assert words in response.json()["detail"]


def test_a_broken_example_is_named(shared: Shared) -> None:
    for example, answer in ((RED[:60], (422, "bad-image")), (b"no picture", (415, "unsupported-media"))):
        response = shared.ask("/detect", text=None, example=b64(example))
        assert kind(response) == answer
        assert response.json()["detail"].startswith("example: ")
    response = shared.ask("/detect", text=None, example="a-b*c")
    assert (kind(response), response.json()["detail"]) == ((400, "malformed"), "example: is not valid base64")
    twice = [("image", RED), ("example", RED), ("example", BLUE)]
    response = shared.post("/detect", files=twice)
    assert (kind(response)[0], response.json()["detail"]) == (422, "example: one image at most may be given")


@pytest.mark.parametrize(("given", "word"), [(b"http://good.example/red.png", "a URL"), (b"data:,red", "a data URI")])
def test_what_is_no_file_is_no_example(shared: Shared, given: bytes, word: str) -> None:
    """As it is no image: only JSON can hold it."""
    for as_text in (True, False):
        example = (None, given) if as_text else ("red.png", given)
        response = shared.post("/detect", files={"image": RED, "example": example})
        assert kind(response) == (415, "unsupported-media")
        detail = response.json()["detail"]
        assert detail.startswith(f"example: is {word}: only a JSON body can hold it")
        assert "-F example=@FILE" in detail


def test_an_empty_file_is_no_example(shared: Shared) -> None:
    files = {"image": encoded(corner()), "example": ("", b"")}
    assert shared.post("/detect", files=files, data={"text": "red"}).json()["detections"]


@pytest.mark.parametrize("path", ["/segment", "/detect"])
@pytest.mark.parametrize("number", [0, 2])
def test_one_picture(shared: Shared, path: str, number: int) -> None:
    response = shared.post(path, json={"images": [b64(RED)] * number, "text": "red"})
    assert kind(response) == (422, "invalid-input")


# --- bytes, work and stages ---


async def ask(there: Lab, path: str, upload: bytes, media: str = "application/json") -> httpx.Response:
    return await there.client.post(path, files={"image": upload}, data={"text": "red"}, headers={"accept": media})


def test_answers_need_room() -> None:
    async def test() -> None:
        upload = encoded(corner((400, 400)))
        for path, media, most in (
            ("/segment", "application/json", 230_000),
            ("/segment", "image/png", 530_000),
            ("/detect", "image/png", 490_000),
        ):
            for room, status in ((most + 20_000, 200), (most - 70_000, 413)):
                async with lab(max_inflight_bytes=room, max_body_bytes=100_000) as there:
                    response = await ask(there, path, upload, media)
                    assert response.status_code == status, (path, room, response.text)
                    if status == 413:
                        assert kind(response) == (413, "too-many-bytes")
                    assert there.admission.ledger.bytes == 0

    run(test)


def test_stages_and_work() -> None:
    async def test() -> None:
        async with lab() as there:
            for path, media, stages in (
                ("/segment", "application/json", ("decode", "encode", "score", "draw")),
                ("/detect", "image/png", ("score", "draw")),
                ("/detect", "application/json", ("score",)),
            ):
                response = await ask(there, path, RED, media)
                assert response.status_code == 200
                assert all(f"{stage};dur=" in response.headers["server-timing"] for stage in (*stages, "total"))
                assert not there.admission.ledger.unfinished
            assert there.tower.sizes("encode") == [1]  # once, whatever is asked
            assert there.count("requests_total", task="segment", model="fake", code="200") == 1
            assert there.count("requests_total", task="detect", model="fake", code="200") == 2

    run(test)


def test_texts_share_a_batch_and_the_picture_its_encode() -> None:
    async def test() -> None:
        async with lab() as there:
            texts = [f"red {number}" for number in range(16)]
            for path in ("/segment", "/detect"):
                there.heads.calls.clear()
                with there.heads.held() as hold:
                    first = there.begin("/caption")
                    await entered(hold)
                    asked = there.begin(path, text=texts)
                    hold.release()
                    assert {(await one).status_code for one in (first, asked)} == {200}
                assert sum(there.heads.sizes("score")) == 16
            assert there.tower.sizes("encode") == [1]

    run(test)


def test_by_real_decoders() -> None:
    """What passes to their processes and back."""

    async def test() -> None:
        async with serving(lambda _: fake_models(), decoder_processes) as (client, _):
            await until_ready(client)
            upload = lying(corner((90, 30)))
            for path, name in (("/segment", "segments"), ("/detect", "detections")):
                fields = {"text": ["red", "\u7d05 \x00\x1b[1m \U0001f600" + "x" * 500]}
                response = await client.post(path, files={"image": upload}, data=fields)
                assert response.json()[name]
                seen = drawn(await client.post(path, files={"image": upload}, data=fields, headers=PICTURE))
                assert seen.shape == (30 + 36 * (path == "/segment"), 90, 3)
            mask = mask_of((await client.post("/segment", files={"image": upload}, data=fields)).json()["segments"][0])
            assert mask.shape == (30, 90)

    run(test)


def test_models_tell_who_can(shared: Shared) -> None:
    tasks = shared.get("/models").json()["models"][0]["tasks"]
    assert {"segment", "detect"} <= tasks.keys()
