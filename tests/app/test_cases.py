"""Requests as real clients write them, byte by byte, to the service that a new user starts: the lines of
cases/README.md, those about pictures by their captions alone: what is read is in decoding/test_cases.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bench.service import running_service

CASES = Path(__file__).parent / "cases"
CAPTION = "a blue circle to the left of a green rectangle"
MULTIPART = "multipart/form-data; boundary=b0undary"
JSON = "application/json"
PAGE = "https://page.example"
PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type,authorization",
}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running_service(profile="demo-shapes") as service, httpx.Client(base_url=service.url, timeout=30) as client:
        yield client


def send(client: httpx.Client, path: str, name: str, content_type: str, **headers: str) -> httpx.Response:
    content = (CASES / name).read_bytes()
    return client.post(path, content=content, headers={"Content-Type": content_type, **headers})


def captions(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [caption["text"] for caption in response.json()["captions"]]


def answer(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    [one] = response.json()["answers"]
    return str(one["answer"])


@pytest.mark.parametrize(
    "name",
    [
        "multipart-plain.body",
        "multipart-image-without-filename.body",
        "multipart-filename-star-only.body",
        "multipart-text-iso-8859-1.body",
        "multipart-base64-lines.body",
        "form-blank-number.body",
    ],
)
def test_multipart(client: httpx.Client, name: str) -> None:
    assert answer(send(client, "/vqa", name, MULTIPART)) == "blue"


def test_the_question_comes_back_with_its_accent(client: httpx.Client) -> None:
    response = send(client, "/vqa", "multipart-text-iso-8859-1.body", MULTIPART)
    assert "café" in response.json()["answers"][0]["question"]


def test_the_broken_image_is_named(client: httpx.Client) -> None:
    response = send(client, "/caption", "multipart-second-image-broken.body", MULTIPART)
    assert response.status_code == 422
    assert response.json()["detail"].startswith("image: 1: ")


def test_no_boundary(client: httpx.Client) -> None:
    response = send(client, "/vqa", "multipart-plain.body", "multipart/form-data")
    assert response.status_code == 400
    assert "boundary is missing" in response.json()["detail"]


def test_a_coding_that_is_none(client: httpx.Client) -> None:
    response = send(client, "/vqa", "multipart-plain.body", MULTIPART, **{"Content-Encoding": "Identity"})
    assert answer(response) == "blue"


def test_a_trailing_slash(client: httpx.Client) -> None:
    response = send(client, "/vqa/", "multipart-plain.body", MULTIPART)
    assert response.status_code == 404
    assert "/vqa" in response.json()["detail"].split()


@pytest.mark.parametrize(
    "name",
    [
        "json-null-options.json",
        "json-integral-float.json",
        "json-base64-url-alphabet.json",
        "json-data-uri-octet-stream.json",
    ],
)
def test_json(client: httpx.Client, name: str) -> None:
    assert captions(send(client, "/caption", name, JSON)) == [CAPTION]


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", "application/x-www-form-urlencoded"])
def test_raw(client: httpx.Client, content_type: str) -> None:
    assert captions(send(client, "/caption", "plain.png", content_type)) == [CAPTION]


def test_head(client: httpx.Client) -> None:
    response = client.head("/models")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("keys", ["", "secret"])
def test_a_page_of_an_allowed_origin(keys: str) -> None:
    with (
        running_service(profile="demo-shapes", cors_origins=PAGE, api_keys=keys) as service,
        httpx.Client(base_url=service.url) as client,
    ):
        preflight = client.options("/caption", headers=PREFLIGHT)
        assert preflight.status_code in (200, 204)
        assert preflight.headers["access-control-allow-origin"] == PAGE
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert preflight.headers["access-control-allow-headers"] == "content-type,authorization"
        posted = send(client, "/caption", "plain.png", "image/png", Origin=PAGE, Authorization="Bearer secret")
        assert captions(posted) == [CAPTION]
        assert posted.headers["access-control-allow-origin"] == PAGE


# --- pictures ---

GRAY = "a black circle to the left of a gray rectangle"


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("png-compressed-text-2mb.png", "image/png", CAPTION),
        ("png-text-wrong-checksum.png", "image/png", CAPTION),
        ("jpeg-no-end-marker.jpg", "image/jpeg", CAPTION),
        ("bmp-v5-alpha-all-zero.bmp", "image/bmp", CAPTION),
        ("bmp-v5-real-alpha.bmp", "image/bmp", CAPTION),
        ("tiff-16bit-white-is-zero.tif", "image/tiff", GRAY),
        ("tiff-int32-0-to-255.tif", "image/tiff", GRAY),
        ("photo-8160x6144.png", "image/png", CAPTION),
        ("gif-first-frame-without-pixels.gif", "image/gif", CAPTION),
        ("photo.heic", "image/heic", CAPTION),
    ],
)
def test_pictures(client: httpx.Client, name: str, kind: str, expected: str) -> None:
    assert captions(send(client, "/caption", name, kind)) == [expected]


@pytest.mark.parametrize(
    ("name", "status", "word"),
    [
        ("jpeg-half.jpg", 422, "rows are missing"),
        ("tiff-gray-alpha-16bit.tif", 422, "not supported"),
    ],
)
def test_pictures_that_are_refused(client: httpx.Client, name: str, status: int, word: str) -> None:
    response = send(client, "/caption", name, "application/octet-stream")
    assert (response.status_code, word in response.json()["detail"]) == (status, True)
