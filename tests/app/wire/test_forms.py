"""The three forms of a request."""

from __future__ import annotations

import base64
from urllib.parse import quote

import httpx
import pytest

from app.wire.pictures import starts_like_a_picture
from tests.app.conftest import Shared
from tests.app.support import BLUE, FIELDS, RED, TASKS, b64, encoded, picture

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


# --- JSON ---


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "data:image/png;base64,\r\n"])
def test_base64_in_lines(shared: Shared, prefix: str) -> None:
    lines = base64.encodebytes(RED).decode()
    assert lines.count("\n") > 1
    expected = shared.ask("/caption").text
    for wrapped in (lines, lines.replace("\n", "\r\n")):
        assert shared.post("/caption", json={"image": prefix + wrapped}).text == expected
        assert shared.post("/caption", json={"images": [prefix + wrapped]}).text == expected


@pytest.mark.parametrize("space", [" ", "\t", "\x0b", "\r\n", "  \n\t"])
def test_base64_with_spaces(shared: Shared, space: str) -> None:
    image = b64(RED)
    assert shared.post("/caption", json={"image": space + image[:41] + space + image[41:] + space}).status_code == 200


@pytest.mark.parametrize("space", ["\u2028", "\xa0", "\\n", "%0A", "."])
def test_base64_with_what_is_no_space(shared: Shared, space: str) -> None:
    image = b64(RED)
    refused(shared.post("/caption", json={"image": image[:40] + space + image[40:]}), 400, "base64")


@pytest.mark.parametrize(
    "prefix",
    [
        "data:;base64,",
        "data:application/octet-stream;base64,",
        "data:image/png;name=a.png;charset=utf-8;base64,",
        "DATA:IMAGE/PNG;BASE64,",
        "data:text/plain; base64,",
        "\n data:image/jpeg;base64, ",
    ],
)
def test_a_data_uri_of_any_type(shared: Shared, prefix: str) -> None:
    image = RED + bytes(-len(RED) % 3) + b"\xfb\xef\xbe\xff\xff\xff\xfb"
    assert all(character in b64(image) for character in "+/=")
    expected = shared.ask("/caption", image).text
    assert shared.post("/caption", json={"image": prefix + b64(image)}).text == expected
    escaped = quote(b64(image), safe="")
    for one in (escaped, escaped.replace("%2B", "%2b").replace("%2F", "%2f").replace("%3D", "%3d")):
        assert shared.post("/caption", json={"image": prefix + one}).text == expected


# --- what is absent is absent ---

OPTIONAL = ("model", "prompt", "num_captions", "num_beams", "max_new_tokens", "sample", "top_p", "seed")


def test_null_is_absent(shared: Shared) -> None:
    expected = shared.ask("/caption").text
    assert shared.ask("/caption", images=None, **dict.fromkeys(OPTIONAL)).text == expected
    answers = [
        shared.ask("/vqa", candidates=["red", "blue"], num_beams=None, history=None, template=None, rank_k=None),
        shared.ask("/vqa", candidates=None, rank_k=None, top_candidates=None),
        shared.ask("/match", head=None),
        shared.ask("/embed", text=None, pooling=None, encoding=None),
        shared.post("/embed", json={"image": None, "text": "red"}),
    ]
    assert [answer.status_code for answer in answers] == [200] * 5
    refused(shared.post("/caption", json={"image": None}), 422, "image: is missing")
    refused(shared.ask("/vqa", question=None), 422, "question")
    refused(shared.ask("/vqa", question=["a", None]), 422, "question: 1")


@pytest.mark.parametrize("blank", ["", " ", "\r\n"])
def test_an_empty_field_of_a_form_is_absent(shared: Shared, blank: str) -> None:
    """As HTML forms send what nobody filled in."""
    fields = dict.fromkeys(set(OPTIONAL) - {"prompt"}, blank)
    answers = [
        shared.post("/caption", files={"image": FILE}, data=fields),
        shared.post("/caption", content=RED, headers=PNG, params=fields),
    ]
    assert [answer.text for answer in answers] == [shared.ask("/caption").text] * 2
    texts = {"text": ["red", blank, "blue"], "head": blank}
    assert len(shared.post("/match", files={"image": FILE}, data=texts).json()["scores"][0]) == 2
    refused(shared.post("/vqa", files={"image": FILE}, data={"question": blank}), 422, "question")


def test_an_empty_prompt_is_none_at_all(shared: Shared) -> None:
    shared.lab.heads.calls.clear()
    shared.post("/caption", files={"image": FILE}, data={"prompt": ""})
    shared.post("/caption?prompt=", content=RED, headers=PNG)
    shared.post("/caption", files={"image": FILE}, data={"prompt": " a  "})
    asked = [call.payloads[0].prompt for call in shared.lab.heads.calls if call.method == "generate"]
    assert asked == ["", "", " a  "]


# --- generous in how it is written ---


def test_an_integral_float_is_an_integer(shared: Shared) -> None:
    answer = shared.ask("/caption", num_beams=3.0, max_new_tokens=8.0, length_penalty=1, num_captions=1e0)
    assert answer.text == shared.ask("/caption", num_beams=3, max_new_tokens=8, length_penalty=1.0).text
    fields = {"num_beams": " 3.0 ", "max_new_tokens": "8\r\n", "length_penalty": "1", "head": None}
    form = {name: value for name, value in fields.items() if value}
    assert shared.post("/caption", files={"image": FILE}, data=form).text == answer.text


@pytest.mark.parametrize(("yes", "no"), [("true", "false"), ("1", "0"), ("on", "off"), ("YES", "No"), (" True ", "f")])
def test_how_forms_say_yes_and_no(shared: Shared, yes: str, no: str) -> None:
    drawn = shared.post("/caption", files={"image": FILE}, data={"sample": yes, "seed": "1"})
    assert drawn.status_code == 200
    assert shared.post("/caption", content=RED, headers=PNG, params={"sample": yes, "seed": 1}).text == drawn.text
    assert shared.post("/caption", files={"image": FILE}, data={"sample": no}).status_code == 200


# --- a picture as the whole body ---


@pytest.mark.parametrize(
    "content_type",
    ["", "image/png", "image/jpeg", "IMAGE/*", "application/octet-stream", "application/x-www-form-urlencoded"],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_raw_picture_needs_no_type(shared: Shared, content_type: str, kind: str) -> None:
    image = encoded(picture("red"), kind)
    answer = shared.post("/caption?num_captions=2", content=image, headers={"content-type": content_type})
    assert answer.text == shared.ask("/caption", image, num_captions=2).text
    request = shared.lab.client.build_request("POST", "/caption?num_captions=2", content=image)
    assert "content-type" not in request.headers
    assert shared.runner.run(shared.lab.client.send(request)).text == answer.text


@pytest.mark.parametrize(
    "start", ["MM\0*", "MM\0+", "II+\0", "\0\0\0\x18ftypheic", "\0\0\0\x1cftypavif", "\0\0\0\x14ftypmif1"]
)
def test_kinds_of_pictures_by_their_first_bytes(start: str) -> None:
    assert starts_like_a_picture(start.encode("latin-1") + bytes(20))


@pytest.mark.parametrize("start", [b"", b"{", b"image=", b"RIFF\0\0\0\0WAVE", b"<svg", b"\0ftyp", b"%PDF-1.7"])
def test_what_is_no_picture(start: bytes) -> None:
    assert not starts_like_a_picture(start + bytes(20))


@pytest.mark.parametrize("coding", ["identity", "Identity", "IDENTITY", "", " identity , identity"])
def test_a_body_that_says_that_it_is_not_compressed(shared: Shared, coding: str) -> None:
    assert shared.post("/caption", content=RED, headers=PNG | {"content-encoding": coding}).status_code == 200


# --- JSON keys ---


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
