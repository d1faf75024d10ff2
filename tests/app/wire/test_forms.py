"""The three forms of a request."""

from __future__ import annotations

import base64

import httpx
import pytest

from tests.app.conftest import Shared
from tests.app.support import BLUE, FIELDS, RED, TASKS, b64

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


# --- the same answer in each form ---


@pytest.mark.parametrize("path", TASKS)
def test_three_forms_one_answer(shared: Shared, path: str) -> None:
    fields = FIELDS[path]
    answers = [
        shared.post(path, files={"image": FILE}, data=fields),
        shared.post(path, json={"image": b64(RED)} | fields),
        shared.post(path, json={"image": f"data:image/png;base64,{b64(RED)}"} | fields),
        shared.post(path, content=RED, headers=PNG, params=fields),
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.text for answer in answers}) == 1


@pytest.mark.parametrize("path", ["/caption", "/match", "/embed"])
def test_several_images(shared: Shared, path: str) -> None:
    fields = FIELDS[path]
    form = shared.post(path, files=[("image", FILE), ("image", ("blue.png", BLUE))], data=fields)
    text = shared.post(path, json={"images": [b64(RED), b64(BLUE)]} | fields)
    assert (form.status_code, text.status_code) == (200, 200)
    assert form.text == text.text


def test_a_repeated_field_is_a_list(shared: Shared) -> None:
    texts = {"text": ["red", "blue"]}
    form = shared.post("/match", files={"image": FILE}, data=texts)
    raw = shared.post("/match", content=RED, headers=PNG, params=texts)
    assert len(form.json()["scores"][0]) == 2
    assert form.text == raw.text == shared.ask("/match", **texts).text


def test_forms_and_queries_are_coerced_and_json_is_not(shared: Shared) -> None:
    fields = {"sample": "true", "seed": "1", "num_captions": "2", "temperature": "0.5"}
    assert shared.post("/caption", files={"image": FILE}, data=fields).status_code == 200
    assert shared.post("/caption", content=RED, headers=PNG, params=fields).status_code == 200
    refused(shared.ask("/caption", **fields), 422, "sample")
    assert shared.ask("/caption", sample=True, seed=1, temperature=1).status_code == 200


def test_text_is_stripped_and_a_prompt_is_not(shared: Shared) -> None:
    shared.lab.heads.calls.clear()
    shared.ask("/vqa", question="  What color?\n")
    shared.ask("/caption", prompt=" a picture of ")
    shared.ask("/caption", prompt="")
    shared.ask("/caption")
    asked = [call.payloads[0] for call in shared.lab.heads.calls if call.method == "generate"]
    assert asked[0].question == "What color?"
    assert [caption.prompt for caption in asked[1:]] == [" a picture of ", "", None]


def test_part_with_a_transfer_encoding(shared: Shared) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        b"Content-Transfer-Encoding: base64\r\n\r\n" + b64(RED).encode() + b"\r\n--x--\r\n"
    )
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert shared.post("/caption", content=body, headers=headers).status_code == 200


# --- JSON ---


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "data:image/png;base64,\r\n"])
def test_base64_in_lines(shared: Shared, prefix: str) -> None:
    lines = base64.encodebytes(RED).decode()
    assert lines.count("\n") > 1
    expected = shared.ask("/caption").text
    for wrapped in (lines, lines.replace("\n", "\r\n")):
        assert shared.post("/caption", json={"image": prefix + wrapped}).text == expected
        assert shared.post("/caption", json={"images": [prefix + wrapped]}).text == expected


@pytest.mark.parametrize("space", [" ", "\t", "\x0b", "\u2028", "\\n"])
def test_base64_with_other_spaces(shared: Shared, space: str) -> None:
    image = b64(RED)
    refused(shared.post("/caption", json={"image": image[:40] + space + image[40:]}), 400, "base64")


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/caption", '{"image": "%", "image": "%"}', "image"),
        ("/caption", '{"image": "%", "num_beams": 1, "num_beams": 2}', "num_beams"),
        ("/caption", '{"image": "%", "num_beams": 1, "num\\u005fbeams": 1}', "num_beams"),
        ("/vqa", '{"image": "%", "question": "?", "history": [{"answer": "a", "answer": "a"}]}', "answer"),
        ("/caption", '{"image": "%", "no": {"such": [{"field": 1, "field": 1}]}}', "field"),
    ],
)
def test_a_repeated_key_is_refused(shared: Shared, path: str, body: str, name: str) -> None:
    refused(shared.post(path, content=body.replace("%", b64(RED)), headers=JSON), 422, f"'{name}'", "more than once")
