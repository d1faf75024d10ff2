"""Everything that can be wrong with what a client sent: 400, 415 and 422."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from app.wire.multipart import MAX_PARTS
from models.base import InputError, Item
from models.inputs import Input
from tests.app.conftest import Shared
from tests.app.support import BLUE, FIELDS, RED, TASKS, animated, b64

JSON = {"content-type": "application/json"}
PNG = {"content-type": "image/png"}
FILE = ("red.png", RED, "image/png")
ASK = FIELDS["/vqa"]


def refused(response: httpx.Response, status: int, *words: str) -> None:
    problem = response.json()
    assert (response.status_code, problem["status"]) == (status, status), problem
    assert response.headers["content-type"] == "application/problem+json"
    assert set(problem) == {"type", "title", "status", "detail", "request_id"}
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["type"].startswith("/errors/")
    for word in words:
        assert word in problem["detail"]


# --- 400 ---


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'image': 1}",
        b"\xff\xfe{",
        b'{"image": "\xff"}',
        b"[" * 100_000,
        b'{"image": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"seed": ' + b"9" * 10_000 + b"}",
    ],
)
def test_malformed_json(shared: Shared, body: bytes) -> None:
    refused(shared.post("/caption", content=body, headers=JSON), 400)


@pytest.mark.parametrize(
    "image", ["%%%", "abcde", "é", "\ud800", "YQ=", b64(RED) + "=", "data:image/png,abc", "data:,", "data:;base64"]
)
def test_malformed_base64(shared: Shared, image: str) -> None:
    refused(shared.post("/caption", content=json.dumps({"image": image}), headers=JSON), 400, "image")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x--\r\n"),
        ("multipart/form-data; boundary=", b"--x--\r\n"),
        ("multipart/form-data; boundary=x", b"nonsense"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\ncut off'),
        ("multipart/form-data; boundary=" + "x" * 1000, b"--x--\r\n"),
    ],
)
def test_malformed_multipart(shared: Shared, content_type: str, body: bytes) -> None:
    refused(shared.post("/caption", content=body, headers={"content-type": content_type}), 400, "multipart")


# --- 415 ---


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "multipart/mixed; boundary=x", "*/*"])
def test_unsupported_body(shared: Shared, content_type: str) -> None:
    refused(shared.post("/caption", content=RED, headers={"content-type": content_type}), 415, "multipart/form-data")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "", "application/octet-stream", "application/x-www-form-urlencoded"]
)
@pytest.mark.parametrize("body", [json.dumps({"image": b64(RED)}).encode(), b"", b"image=abc", b64(RED).encode()])
def test_only_pictures_are_guessed(shared: Shared, content_type: str, body: bytes) -> None:
    """Any page may send these without a preflight."""
    refused(shared.post("/caption", content=body, headers={"content-type": content_type}), 415)


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip"])
def test_compressed_body(shared: Shared, coding: str) -> None:
    refused(shared.post("/caption", content=b"{}", headers=JSON | {"content-encoding": coding}), 415, "compressed")


def test_text_named_jpg(shared: Shared) -> None:
    refused(shared.post("/caption", files={"image": ("photo.jpg", b"hello there", "image/jpeg")}), 415)


# --- 422 ---


@pytest.mark.parametrize("path", TASKS)
def test_unknown_field_in_each_form(shared: Shared, path: str) -> None:
    fields = FIELDS[path] | {"num_beems": "3"}
    refused(shared.ask(path, num_beems=3), 422, "num_beems")
    refused(shared.post(path, files={"image": FILE}, data=fields), 422, "num_beems")
    refused(shared.post(path, content=RED, headers=PNG, params=fields), 422, "num_beems")


BAD_FIELDS: list[tuple[str, dict[str, Any], str]] = [
    ("/caption", {"num_beams": 999}, "num_beams"),
    ("/caption", {"num_beams": 0}, "num_beams"),
    ("/caption", {"num_beams": 2, "num_captions": 3}, "num_captions"),
    ("/caption", {"num_captions": 9}, "num_captions"),
    ("/caption", {"max_new_tokens": 257}, "max_new_tokens"),
    ("/caption", {"max_new_tokens": 0}, "max_new_tokens"),
    ("/caption", {"max_new_tokens": 3, "min_new_tokens": 4}, "min_new_tokens"),
    ("/caption", {"length_penalty": 11}, "length_penalty"),
    ("/caption", {"length_penalty": float("nan")}, "length_penalty"),
    ("/caption", {"length_penalty": float("inf")}, "length_penalty"),
    ("/caption", {"repetition_penalty": 0}, "repetition_penalty"),
    ("/caption", {"repetition_penalty": 10.5}, "repetition_penalty"),
    ("/caption", {"top_p": 0.5}, "sample"),
    ("/caption", {"top_k": 5}, "sample"),
    ("/caption", {"temperature": 0.5}, "sample"),
    ("/caption", {"seed": 5}, "sample"),
    ("/caption", {"sample": True, "num_beams": 3}, "num_beams"),
    ("/caption", {"sample": True, "top_p": 1.5}, "top_p"),
    ("/caption", {"sample": True, "temperature": 0}, "temperature"),
    ("/caption", {"sample": True, "temperature": float("nan")}, "temperature"),
    ("/caption", {"sample": True, "seed": -1}, "seed"),
    ("/caption", {"sample": "perhaps"}, "sample"),
    ("/caption", {"prompt": "\ud800"}, "prompt"),
    ("/caption", {"prompt": "word " * 100}, "prompt"),
    ("/caption", {"prompt": "x" * 10_001}, "prompt"),
    ("/caption", {"num_beams": 2.5}, "num_beams"),
    ("/caption", {"num_beams": 1e300}, "num_beams"),
    ("/caption", {"num_beams": True}, "num_beams"),
    ("/caption", {"sample": 1.0}, "sample"),
    ("/caption", {"num_beems": None}, "num_beems"),
    ("/caption", {"question": "what?"}, "question"),
    ("/caption", {"history": []}, "history"),
    ("/vqa", {"question": ""}, "question"),
    ("/vqa", {"question": "  \n"}, "question"),
    ("/vqa", {"question": []}, "question"),
    ("/vqa", {"question": [" ", "what?"]}, "question"),
    ("/vqa", {"question": None}, "question"),
    ("/vqa", {"question": 5}, "question"),
    ("/vqa", {"question": "x" * 1_000_000}, "question"),
    ("/vqa", {"question": "\ud800?"}, "question"),
    ("/vqa", {"question": ["what?"] * 65}, "question"),
    ("/vqa", {"rank_k": 3}, "rank_k"),
    ("/vqa", {"candidates": ["red"]}, "candidates"),
    ("/vqa", {"candidates": []}, "candidates"),
    ("/vqa", {"candidates": ["red", ""]}, "candidates"),
    ("/vqa", {"candidates": [str(number) for number in range(4097)]}, "candidates"),
    ("/vqa", {"candidates": ["red", "blue"], "rank_k": 0}, "rank_k"),
    ("/vqa", {"candidates": ["red", "blue"], "num_beams": 3}, "num_beams"),
    ("/vqa", {"candidates": [str(n) for n in range(128)], "question": ["?"] * 9}, "pairs"),
    (
        "/vqa",
        {"candidates": ["x" * 9000] * 300, "rank_k": 1, "question": ["?"] * 9},
        "the answers would have more than 20971520 characters",
    ),
    ("/vqa", {"history": [{"question": "is it?", "answer": "yes"}]}, "history"),
    ("/vqa", {"history": [{"question": "is it?"}]}, "history"),
    ("/vqa", {"history": "is it?"}, "JSON"),
    ("/vqa", {"history": [{"question": "is it?", "answer": "yes"}] * 65}, "65 items"),
    ("/vqa", {"template": "Question: {} Answer:"}, "template"),
    ("/vqa", {"template": "Question:"}, "once"),
    ("/vqa", {"template": "{} or {}?"}, "once"),
    ("/vqa", {"num_captions": 2}, "num_captions"),
    ("/match", {"text": ""}, "text"),
    ("/match", {"text": ["red"] * 65}, "text"),
    ("/match", {"head": "all"}, "head"),
    ("/embed", {"text": " "}, "text"),
    ("/embed", {"pooling": "mean"}, "pooling"),
    ("/embed", {"pooling": "max"}, "pooling"),
    ("/embed", {"encoding": "hex"}, "encoding"),
    ("/match", {"head": "lm", "video": True}, "video: not with head lm"),
    ("/match", {"video": "yes"}, "video"),
    ("/embed", {"space": "video"}, "space"),
    ("/embed", {"space": "image", "text": "red"}, "text: not with space image"),
    ("/embed", {"space": "text", "text": "red"}, "image: not with space text"),
    ("/embed", {"space": "multimodal"}, "text: is missing"),
    ("/embed", {"space": "image", "video": True}, "video: only with space itc"),
    ("/embed", {"space": "multimodal", "text": "red", "video": True}, "video: only with space itc"),
    ("/embed", {"video": 1}, "video"),
    ("/caption", {"video": True}, "video"),
    ("/capfilt", {"video": True}, "video"),
]


@pytest.mark.parametrize(("path", "fields", "word"), BAD_FIELDS)
def test_fields_out_of_bounds(shared: Shared, path: str, fields: dict[str, Any], word: str) -> None:
    body = {"image": b64(RED)} | FIELDS[path] | fields
    calls = len(shared.lab.heads.calls)
    refused(shared.post(path, content=json.dumps(body), headers=JSON), 422, word)
    assert len(shared.lab.heads.calls) == calls


@pytest.mark.parametrize(
    "fields",
    [
        {"num_beams": "many"},
        {"num_beams": ["2", "3"]},
        {"length_penalty": "nan"},
        {"sample": "2"},
        {"num_beems": ""},
        {"prompt": b"\xed\xa0\x80"},
    ],
)
def test_form_fields_out_of_bounds(shared: Shared, fields: dict[str, Any]) -> None:
    refused(shared.post("/caption", files={"image": FILE}, data=fields), 422, next(iter(fields)))


@pytest.mark.parametrize("query", ["prompt=%ED%A0%80", "prompt=%ff", "num_beams=2&num_beams=3", "numbeams"])
def test_query_fields_out_of_bounds(shared: Shared, query: str) -> None:
    refused(shared.post(f"/caption?{query}", content=RED, headers=PNG), 422)


def test_history_outside_json(shared: Shared) -> None:
    fields = ASK | {"history": '[{"question": "?", "answer": "yes"}]'}
    refused(shared.post("/vqa", files={"image": FILE}, data=fields), 422, "JSON")
    refused(shared.post("/vqa", content=RED, headers=PNG, params=fields), 422, "JSON")


def test_query_beside_another_form(shared: Shared) -> None:
    refused(shared.post("/caption?num_captions=2", json={"image": b64(RED)}), 422, "Query")
    refused(shared.post("/caption?num_captions=2", files={"image": FILE}), 422, "Query")


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/caption", {}, "missing"),
        ("/caption", {"images": []}, "missing"),
        ("/caption", {"image": None}, "missing"),
        ("/caption", {"image": ""}, "empty"),
        ("/caption", {"image": 5}, "string"),
        ("/caption", {"image": [b64(RED)]}, "string"),
        ("/caption", {"images": b64(RED)}, "list"),
        ("/caption", {"images": [None]}, "list"),
        ("/caption", {"image": b64(RED), "images": [b64(RED)]}, "only one"),
        ("/caption", {"images": [b64(RED)] * 65}, "at most 64"),
        ("/caption", {"image": "http://example.com/a.png"}, "not enabled"),
        ("/caption", {"image": "HTTPS://example.com/a.png"}, "not enabled"),
        ("/vqa", {"images": [b64(RED), b64(BLUE)]} | ASK, "at most 1"),
        ("/vqa", ASK, "missing"),
        ("/vqa", {"image": b64(RED)}, "question"),
        ("/match", {"image": b64(RED)}, "text"),
        ("/match", {"images": [b64(RED)] * 33, "text": ["red"] * 32}, "pairs"),
        ("/embed", {}, "at least one"),
        ("/embed", {"text": []}, "at least one"),
        ("/embed", {"text": "red", "video": True}, "video: needs an image"),
        ("/embed", {"space": "image"}, "image: is missing"),
        ("/embed", {"space": "text"}, "text: is missing"),
        ("/embed", {"space": "multimodal", "text": "red"}, "image: is missing"),
        ("/embed", {"space": "multimodal", "images": [b64(RED)] * 2, "text": ["red"] * 3}, "3 for 2 images"),
        ("/match", {"images": [b64(animated(["red", "blue"])), b64(RED)], "text": "a", "video": True}, "image: 0: "),
        ("/match", {"images": [b64(RED), b64(animated(["red", "blue"]))], "text": "a", "video": True}, "animated"),
        ("/embed", {"images": [b64(RED), b64(animated(["red", "blue"], "WEBP"))], "video": True}, "image: 1: "),
    ],
)
def test_images_and_items(shared: Shared, path: str, body: dict[str, Any], word: str) -> None:
    refused(shared.post(path, json=body), 422, word)


@pytest.mark.parametrize("body", [b"[]", b"null", b"5", b'"image"', b"NaN"])
def test_json_that_is_not_an_object(shared: Shared, body: bytes) -> None:
    refused(shared.post("/caption", content=body, headers=JSON), 422, "object")


def test_multipart_parts_that_do_not_belong(shared: Shared) -> None:
    refused(shared.post("/caption", files={"image": (None, "not a picture")}), 415, "Not an image")
    refused(shared.post("/caption", files={"picture": FILE}), 422, "unknown field 'picture'; there are: image")
    refused(shared.post("/caption", files={"image": FILE}, data={"images": "x"}), 422, "images")
    refused(shared.post("/caption", files={"image": ("empty.png", b"")}), 422, "empty")
    refused(shared.post("/caption", files={"image": FILE}, data={"text": ["x"] * (MAX_PARTS + 1)}), 422, "8192")


def test_raw_body_that_is_empty(shared: Shared) -> None:
    refused(shared.post("/caption", content=b"", headers=PNG), 422, "empty")


def test_truncated_image(shared: Shared) -> None:
    refused(shared.post("/caption", content=RED[:60], headers=PNG), 422, "broken")


BROKEN = RED[:-30]


@pytest.mark.parametrize(
    ("images", "status", "detail"),
    [
        ([RED, BROKEN, BLUE], 422, "image: 1: The image is broken"),
        ([RED, RED, BROKEN, RED], 422, "image: 2: The image is broken"),
        ([BROKEN, RED, BROKEN], 422, "image: 0: The image is broken"),
        ([RED, b"no picture"], 415, "image: 1: Not an image"),
        ([RED, BLUE, b""], 422, "image: 2: is empty"),
        ([BROKEN], 422, "The image is broken"),
    ],
)
@pytest.mark.parametrize("path", ["/caption", "/match", "/embed"])
def test_of_several_images_the_wrong_one_is_named(
    shared: Shared, path: str, images: list[bytes], status: int, detail: str
) -> None:
    answers = [
        shared.post(path, json={"images": [b64(image) for image in images]} | FIELDS[path]),
        shared.post(path, files=[("image", ("a.png", image)) for image in images], data=FIELDS[path]),
    ]
    for answer in answers:
        refused(answer, status)
        assert answer.json()["detail"].startswith(detail)


@pytest.mark.parametrize("wrong", ["%", "abcde", "data:image/png,abc", "http://example.com/a.png"])
def test_of_several_strings_the_wrong_one_is_named(shared: Shared, wrong: str) -> None:
    answer = shared.post("/caption", json={"images": [b64(RED), b64(BLUE), wrong]})
    assert answer.status_code in (400, 422)
    assert answer.json()["detail"].startswith("image: 2: ")
    assert shared.post("/caption", json={"image": wrong}).json()["detail"].startswith("image: ")


@pytest.mark.parametrize(
    ("path", "fields", "detail"),
    [
        ("/match", {"text": ["a", "a", "bad"]}, "text: 2: has no character that the model reads"),
        ("/embed", {"text": ["a", "a", "bad", "bad"]}, "text: 2: has no character that the model reads"),
        ("/vqa", {"question": ["a", "bad", "a"]}, "question: 1: text: has no character that the model reads"),
        ("/match", {"text": "bad"}, "text: has no character that the model reads"),
    ],
)
def test_of_several_texts_the_wrong_one_is_named(
    shared: Shared, path: str, fields: dict[str, Any], detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = shared.lab.heads.prepare

    def refuse(request: Input) -> Item:
        if "bad" in (getattr(request, "text", ""), getattr(request, "question", "")):
            raise InputError("text: has no character that the model reads")
        return prepare(request)

    monkeypatch.setattr(shared.lab.heads, "prepare", refuse)
    answer = shared.ask(path, **fields)
    refused(answer, 422)
    assert answer.json()["detail"] == detail


def test_one_bad_image_of_several(shared: Shared) -> None:
    before = shared.lab.count("batch_size_count", unit="fake-tower", op="encode")
    images = [b64(RED[:-30]), b64(RED), b64(b"not an image")]
    response = shared.post("/caption", json={"images": [b64(BLUE[:-20] + bytes(20)), *images]})
    assert response.status_code in (415, 422)
    assert shared.lab.count("batch_size_count", unit="fake-tower", op="encode") == before


def test_values_are_not_echoed(shared: Shared) -> None:
    response = shared.ask("/vqa", question=["my secret"], num_beams="my secret")
    assert "secret" not in response.text
