"""Operation: models, metrics, health, documentation."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from pydantic import TypeAdapter

from app import answers, schemas
from app.errors import INTERNAL, PROBLEMS, ROUTING
from tests.app.conftest import Shared
from tests.app.support import BLUE, TASKS

METRICS = (
    "requests_total",
    "request_seconds_bucket",
    "stage_seconds_bucket",
    "batch_size_bucket",
    "queue_items",
    "queue_oldest_seconds",
    "inflight_requests",
    "rejected_total",
    "feature_cache_total",
    "feature_cache_bytes",
    "generated_tokens_total",
    "ready",
    "model_info",
)


def test_models(shared: Shared) -> None:
    answer = shared.get("/models").json()
    TypeAdapter(answers.ModelsAnswer).validate_python(answer, strict=True)
    [model] = answer["models"]
    assert (model["name"], model["family"], model["note"]) == ("fake", "fake", "names colours; has no weights")
    assert set(model["tasks"]) == {"caption", "vqa", "match", "embed"}
    assert model["tasks"]["vqa"] == {
        "checkpoint": "fake",
        "revision": None,
        "device": "cpu",
        "dtype": "fp32",
        "image_size": 32,
    }
    assert answer["limits"]["max_body_bytes"] == 20 * 2**20
    assert answer["limits"]["max_items"] == 64


def test_health(shared: Shared) -> None:
    for path, status in (("/health/live", "live"), ("/health/ready", "ready")):
        response = shared.get(path)
        assert (response.status_code, response.json()) == (200, {"status": status})


def test_metrics(shared: Shared) -> None:
    for path in TASKS:
        shared.ask(path, BLUE)
    shared.post("/caption", headers={"Content-Length": str(2**40)})
    response = shared.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    for name in METRICS:
        assert f"\nblip_{name}" in response.text, name
    assert re.search(r'blip_generated_tokens_total{model="fake"} [1-9]', response.text)
    assert (
        'blip_model_info{checkpoint="fake",device="cpu",dtype="fp32",family="fake",model="fake",revision=""} 1.0'
        in (response.text)
    )
    for stage in ("decode", "preprocess", "queue", "encode", "score", "generate"):
        assert f'blip_stage_seconds_count{{stage="{stage}"}}' in response.text


# --- documentation ---


@pytest.fixture(scope="module")
def openapi(shared: Shared) -> Any:
    return shared.get("/openapi.json").json()


def test_docs(shared: Shared) -> None:
    assert "openapi.json" in shared.get("/docs").text


def test_every_route_is_documented(openapi: Any) -> None:
    assert set(openapi["paths"]) == {*TASKS, "/models", "/metrics", "/health/live", "/health/ready"}
    assert "$ref" not in json.dumps(openapi)


@pytest.mark.parametrize("path", TASKS)
def test_every_form_and_field_is_documented(openapi: Any, path: str) -> None:
    post = openapi["paths"][path]["post"]
    content = post["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "application/json", "image/*"}
    models: dict[str, type[schemas.Fields]] = {
        "/caption": schemas.CaptionFields,
        "/vqa": schemas.VqaFields,
        "/match": schemas.MatchFields,
        "/embed": schemas.EmbedFields,
    }
    fields = models[path].model_fields
    images = {"image"} if path == "/vqa" else {"image", "images"}
    assert set(content["application/json"]["schema"]["properties"]) == {*fields, *images}
    assert set(content["multipart/form-data"]["schema"]["properties"]) == {*fields, "image"} - {"history"}
    in_query = {parameter["name"] for parameter in post["parameters"] if parameter["in"] == "query"}
    assert in_query == {*fields} - {"history"}


@pytest.mark.parametrize("path", TASKS)
def test_examples_work(shared: Shared, openapi: Any, path: str) -> None:
    post = openapi["paths"][path]["post"]
    content = post["requestBody"]["content"]
    in_json, in_form = (content[kind]["example"] for kind in ("application/json", "multipart/form-data"))
    answer = post["responses"]["200"]["content"]["application/json"]["example"]
    assert answer["model"]
    response = shared.post(path, json=in_json)
    assert response.status_code == 200
    assert set(response.json()) == set(answer)
    encoded = in_json.get("image") or in_json["images"][0]
    fields = {name: value for name, value in in_form.items() if name != "image"}
    form = shared.post(path, files={"image": ("example.png", base64.b64decode(encoded))}, data=fields)
    assert form.json() == response.json()


@pytest.mark.parametrize("path", TASKS)
def test_every_problem_is_documented(openapi: Any, path: str) -> None:
    responses = openapi["paths"][path]["post"]["responses"]
    documented = set()
    for status, response in responses.items():
        if status == "200":
            continue
        for slug, example in response["content"]["application/problem+json"]["examples"].items():
            assert example["value"]["status"] == int(status)
            documented.add(slug)
    expected = {problem.slug for problem in (*PROBLEMS.values(), *ROUTING.values(), INTERNAL)}
    assert documented == expected - {"client-gone", "method-not-allowed"}
