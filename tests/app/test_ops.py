"""Operation: models, metrics, health, documentation."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
from pydantic import TypeAdapter

from app import __version__
from app.problems import EVERY_PROBLEM
from app.service import Phase
from app.settings import Settings
from app.wire import answers, regions, retrieval, schemas
from app.wire.capfilt import CapfiltFields
from models.base import ServedModel
from models.fake.answers import DIMENSIONS
from models.fake.runner import fake_models
from models.families.blip.runners import ANSWER, CAPTION
from models.families.blip2.language import OPTRunner, T5Runner
from tests.app.conftest import Shared
from tests.app.support import BLUE, JSON_ONLY, RED, TASKS, b64, lab, run, serving, until_ready
from tests.app.test_chat import volatile

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
    "feature_cache_kept_total",
    "feature_cache_kept_bytes",
    "generation_cache_bytes",
    "generated_tokens_total",
    "ready",
    "model_info",
)


def test_models(shared: Shared) -> None:
    answer = shared.get("/models").json()
    TypeAdapter(answers.ModelsAnswer).validate_python(answer, strict=True)
    [model] = answer["models"]
    assert (model["name"], model["family"], model["note"]) == ("fake", "fake", "names colours; has no weights")
    assert set(model["tasks"]) == {"caption", "vqa", "match", "embed", "capfilt", "localize", "segment", "detect"}
    assert model["tasks"]["vqa"] == {
        "checkpoint": "fake",
        "revision": None,
        "device": "cpu",
        "dtype": "fp32",
        "kernels": {"tower": "onednn", "text": "fbgemm", "head": "onednn"},
        "image_size": 32,
        "history": False,
        "template": False,
        "images": 1,
        "answers": 0,
    }
    assert model["template"] is None
    embed = model["tasks"]["embed"]
    assert (embed["dimensions"], embed["pooling"]) == (DIMENSIONS, [])
    assert (embed["spaces"], embed["video"]) == (["itc", "image", "text", "multimodal"], True)
    assert model["tasks"]["match"]["video"] is True
    assert answer["limits"]["max_body_bytes"] == 20 * 2**20
    assert answer["limits"]["max_items"] == 64


def test_health(shared: Shared) -> None:
    for path, status in (("/health/live", "live"), ("/health/ready", "ready")):
        response = shared.get(path)
        assert (response.status_code, response.json()) == (200, {"status": status})


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_head_of_health(shared: Shared, path: str) -> None:
    assert set(shared.post(path).headers["allow"].split(", ")) == {"GET", "HEAD"}
    response = shared.request("HEAD", path)
    assert (response.status_code, response.content) == (200, b"")
    phase, shared.lab.service.phase = shared.lab.service.phase, Phase.FAILED
    try:
        response = shared.request("HEAD", path)
        assert (response.status_code, response.content) == (shared.get(path).status_code, b"") == (503, b"")
    finally:
        shared.lab.service.phase = phase


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
    for stage in ("decode", "preprocess", "queue", "encode", "score", "generate", "localize"):
        assert f'blip_stage_seconds_count{{stage="{stage}"}}' in response.text


# --- documentation ---


@pytest.fixture(scope="module")
def openapi(shared: Shared) -> Any:
    return shared.get("/openapi.json").json()


def test_docs_name_everything_and_need_no_other_host(shared: Shared, openapi: Any) -> None:
    response = shared.get("/docs")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert 'href="openapi.json"' in response.text
    assert not re.search(r"//|<link|@import|url\(| on\w+=", response.text)
    assert re.findall(r"<script[^>]*>", response.text) == ['<script src="docs/try.js" defer>']
    assert re.findall(r"src=|</script>", response.text) == ["src=", "</script>"]
    head, *sections = response.text.split("<h2>")
    assert head
    operations = {f"{m.upper()} {path}": one for path, all_ in openapi["paths"].items() for m, one in all_.items()}
    assert [section.partition("</h2>")[0] for section in sections] == [*operations]
    for section, operation in zip(sections, operations.values(), strict=True):
        for name in (*_names(operation), *(one["name"] for one in operation.get("parameters", ()))):
            assert f"<td>{name}</td>" in section or f".{name}</td>" in section, name
        for status, answer in operation["responses"].items():
            assert f"<summary>{status}: {answer['description']}</summary>" in section


def test_docs_run_nothing_but_their_own_script(shared: Shared) -> None:
    policy = dict(one.split(" ", 1) for one in shared.get("/docs").headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["script-src"], policy["connect-src"]) == ("'none'", "'self'", "'self'")
    [style] = re.findall("<style>(.*?)</style>", shared.get("/docs").text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy["style-src"] == f"'sha256-{digest}'"
    script = shared.get("/docs/try.js")
    assert (script.status_code, script.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert not re.search(r"innerHTML|eval|https?:|document\.write", script.text)


@pytest.mark.parametrize("path", TASKS)
def test_docs_have_a_form_for_each_task(shared: Shared, openapi: Any, path: str) -> None:
    [form] = re.findall(
        f'<form data-method="POST" data-path="{path[1:]}">.*?</form>', shared.get("/docs").text, re.DOTALL
    )
    schema = openapi["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert re.findall(r' name="(\w+)"', form) == [*schema["properties"]]
    takes_several = path not in ("/localize", "/segment", "/detect")
    assert ('type="file" accept="image/*" name="image" multiple' in form) == takes_several
    assert ('type="file" accept="image/*" name="example"' in form) == (path == "/detect")
    names = ("question", "candidates", "text", "label", "template")
    lists = {name for name in names if is_list(schema["properties"].get(name, {}))}
    assert set(re.findall(r'<textarea name="(\w+)"', form)) == lists


def is_list(schema: dict[str, Any]) -> bool:
    return any(one.get("type") == "array" for one in (schema, *schema.get("anyOf", ())))


def test_docs_tell_every_default(shared: Shared) -> None:
    """Of what is not told by its type or text: as a figure."""
    page = shared.get("/docs").text
    assert "null" not in re.findall(r"<tr><td>[^<]*</td><td>[^<]*</td><td>([^<]*)</td>", page)
    assert not re.search("default: the authors", page)
    for name, fields in {"captions": CAPTION, "answers": ANSWER}.items():
        assert f"BLIP {fields.num_beams}, BLIP-2 5" in page
        assert re.search(f"{name} BLIP {fields.max_new_tokens}, ", page)
    for name, runner in {"OPT": OPTRunner, "T5": T5Runner}.items():
        assert f"{name} {runner.caption.max_new_tokens}" in page
        assert f"BLIP-2 {runner.answer.max_new_tokens}" in page
        assert f"{name} {runner.answer.length_penalty:g}" in page


def _names(node: Any) -> Iterator[str]:
    """Of the properties in all schemas below."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from value if key == "properties" else ()
        yield from _names(value)


def test_every_route_is_documented(openapi: Any) -> None:
    operation = {"/models", "/metrics", "/health/live", "/health/ready"}
    assert set(openapi["paths"]) == {*TASKS, *JSON_ONLY, *operation, "/v1/models", "/v1/models/{name}"}
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
        "/classify": retrieval.ClassifyFields,
        "/capfilt": CapfiltFields,
        "/localize": schemas.LocalizeFields,
        "/segment": regions.SegmentFields,
        "/detect": regions.DetectFields,
    }
    fields = models[path].model_fields
    in_json = content["application/json"]["schema"]
    own, *of_others = [in_json] if "properties" in in_json else in_json["anyOf"]
    assert set(own["properties"]) == {*fields, "image", "images"}
    assert own["properties"]["model"]["examples"] == ["fake"]
    assert len(of_others) == (path == "/classify")
    assert set(content["multipart/form-data"]["schema"]["properties"]) == {*fields, "image"} - {"history"}
    in_query = {parameter["name"] for parameter in post["parameters"] if parameter["in"] == "query"}
    assert in_query == {*fields} - {"history"}


@pytest.mark.parametrize("path", TASKS)
def test_examples_work(shared: Shared, openapi: Any, path: str) -> None:
    post = openapi["paths"][path]["post"]
    content = deepcopy(post["requestBody"]["content"])
    in_json, in_form = (content[kind]["example"] for kind in ("application/json", "multipart/form-data"))
    answer = post["responses"]["200"]["content"]["application/json"]["example"]
    response = shared.post(path, json=in_json)
    assert response.status_code == 200
    assert response.json()["model"] == answer["model"] == "fake"
    assert set(response.json()) == set(answer)
    encoded = in_json.get("image") or in_json["images"][0]
    assert in_form.pop("image") in ("(a file)", ["(a file)"])
    form = shared.post(path, files={"image": ("example.png", base64.b64decode(encoded))}, data=in_form)
    assert form.json() == response.json()


@pytest.mark.parametrize("path", JSON_ONLY)
def test_examples_of_other_services_shapes_work(shared: Shared, openapi: Any, path: str) -> None:
    post = openapi["paths"][path]["post"]
    asked = post["requestBody"]["content"]["application/json"]["example"]
    response = shared.post(path, json=asked)
    assert response.status_code == 200
    answer = post["responses"]["200"]["content"]["application/json"]
    assert response.json()["model"] == answer["example"]["model"] == asked["model"] == "fake"
    assert set(response.json()) >= set(answer["example"])  # from which FastAPI drops nulls
    assert fits(response.json(), answer["schema"])


@pytest.mark.parametrize("path", JSON_ONLY)
def test_null_is_absent_and_so_is_a_model_without_a_name(shared: Shared, openapi: Any, path: str) -> None:
    body = openapi["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    others = body["schema"]["properties"].keys() - body["example"].keys()
    expected = volatile(shared.post(path, json=body["example"]).json())
    for nameless in (None, ""):
        asked = body["example"] | dict.fromkeys(others) | {"model": nameless}
        assert volatile(shared.post(path, json=asked).json()) == expected


def test_every_example_fits_its_schema(openapi: Any) -> None:
    for path, methods in openapi["paths"].items():
        for operation in methods.values():
            bodies = [operation.get("requestBody", {"content": {}}), *operation["responses"].values()]
            for media, content in ((media, one) for body in bodies for media, one in body["content"].items()):
                examples = [one["value"] for one in content.get("examples", {}).values()] or [content["example"]]
                for example in examples:
                    assert fits(example, content["schema"]), (path, media, example)


def zero_shot(**parameters: Any) -> dict[str, Any]:
    """As Hugging Face's clients ask."""
    return {"inputs": "YQ==", "parameters": {"candidate_labels": ["a", "b"]} | parameters}


@pytest.mark.parametrize(
    ("path", "body", "valid"),
    [
        ("/caption", {}, False),
        ("/caption", {"image": "YQ=="}, True),
        ("/caption", {"images": ["YQ=="]}, True),
        ("/caption", {"images": []}, False),
        ("/caption", {"images": ["YQ=="] * 64}, True),
        ("/caption", {"images": ["YQ=="] * 65}, False),
        ("/caption", {"image": ""}, False),
        ("/caption", {"image": "YQ==", "prompt": ""}, True),
        ("/caption", {"image": "YQ==", "prompt": "a" * 10_001}, False),
        ("/caption", {"images": "YQ=="}, False),
        ("/caption", {"image": "YQ==", "num_captions": 9}, False),
        ("/caption", {"image": "YQ==", "num_captains": 2}, False),
        ("/vqa", {"question": "?"}, False),
        ("/vqa", {"image": "YQ=="}, False),
        ("/vqa", {"image": "YQ==", "question": ["?"]}, True),
        ("/vqa", {"image": "YQ==", "question": []}, False),
        ("/vqa", {"image": "YQ==", "question": ["?"] * 65}, False),
        ("/vqa", {"image": "YQ==", "question": " "}, False),
        ("/vqa", {"image": "YQ==", "question": "a" * 10_001}, False),
        ("/vqa", {"image": "YQ==", "question": "?", "candidates": "a"}, False),
        ("/vqa", {"image": "YQ==", "question": "?", "candidates": ["a"]}, False),
        ("/vqa", {"image": "YQ==", "question": "?", "candidates": ["a", ""]}, False),
        ("/vqa", {"image": "YQ==", "question": "?", "candidates": ["a", "b"]}, True),
        ("/vqa", {"image": "YQ==", "question": "?", "history": [{"question": "?", "answer": "!"}] * 65}, False),
        ("/vqa", {"image": "YQ==", "question": "?", "template": "Question:"}, False),
        ("/vqa", {"images": ["YQ=="], "question": "?"}, True),
        ("/vqa", {"images": ["YQ=="] * 3, "question": "?"}, False),
        ("/embed", {"image": None, "images": ["YQ=="]}, True),
        ("/match", {"image": "YQ==", "text": "a", "head": "all"}, False),
        ("/embed", {}, False),
        ("/embed", {"text": "a"}, True),
        ("/embed", {"image": "YQ==", "text": []}, True),
        ("/classify", {"image": "YQ==", "label": ["a", "b"]}, True),
        ("/classify", zero_shot(), True),
        ("/classify", zero_shot(hypothesis_template="so {}") | {"options": {"use_cache": True}}, True),
        ("/classify", zero_shot(hypothesis_template="so"), False),
        ("/classify", zero_shot(candidate_labels=["a"]), False),
        ("/classify", zero_shot(top_k=1), False),
        ("/classify", zero_shot() | {"label": ["a", "b"]}, False),
        ("/classify", {"inputs": "YQ=="}, False),
        ("/embed", {"image": "YQ=="}, True),
    ],
)
def test_the_schema_tells_what_is_needed(shared: Shared, openapi: Any, path: str, body: Any, valid: bool) -> None:
    """And the service does as it says."""
    content = openapi["paths"][path]["post"]["requestBody"]["content"]
    assert fits(body, content["application/json"]["schema"]) is valid
    sent = json.loads(json.dumps(body).replace("YQ==", b64(RED)))
    assert (shared.post(path, json=sent).status_code == 200) is valid


def test_the_limits_are_those_of_the_service() -> None:
    async def test() -> None:
        async with lab(max_items=3, max_text_chars=7) as there:
            openapi = (await there.client.get("/openapi.json")).json()
            schema = openapi["paths"]["/match"]["post"]["requestBody"]["content"]["application/json"]["schema"]
            assert fits({"image": "YQ==", "text": ["abcdefg"] * 3}, schema)
            assert not fits({"image": "YQ==", "text": ["abcdefg"] * 4}, schema)
            assert not fits({"image": "YQ==", "text": ["abcdefgh"]}, schema)
            assert (
                openapi["paths"]["/models"]["get"]["responses"]["200"]["content"]["application/json"]["example"]
                == (await there.client.get("/models")).json()
            )
            assert "x-max" not in json.dumps(openapi)

    run(test)


def test_the_documentation_names_models_once_they_are_there() -> None:
    async def test() -> None:
        loaded = threading.Event()

        def load(_: Settings) -> list[ServedModel]:
            loaded.wait()
            return fake_models()

        async with serving(load) as (client, _):
            try:
                for path in ("/openapi.json", "/docs"):
                    response = await client.get(path)
                    assert (response.status_code, "fake" in response.text) == (200, False)
            finally:
                loaded.set()
            await until_ready(client)
            for path in ("/openapi.json", "/docs"):
                assert "fake" in (await client.get(path)).text

    run(test)


def test_with_keys_the_documentation_is_open_and_names_no_model() -> None:
    async def test() -> None:
        async with lab(api_keys="secret") as there:
            response = await there.client.get("/openapi.json")
            assert response.status_code == 200
            assert not re.search("fake|secret", response.text + (await there.client.get("/docs")).text)
            openapi = response.json()
            assert openapi["security"] == [{"bearer": []}, {"key": []}]
            for path, methods in openapi["paths"].items():
                for method, operation in methods.items():
                    needs_key = operation.get("security") != []
                    answer = await there.client.request(method, path)
                    assert (answer.status_code == 401) == needs_key, path

    run(test)


ANNOTATIONS = {"title", "description", "default", "format", "examples", "contentMediaType"}


def fits(value: Any, schema: Any) -> bool:
    """As much of JSON Schema as ours use; an unknown word is an error."""
    unknown = schema.keys() - CHECKS.keys() - ANNOTATIONS
    assert not unknown, unknown
    type_first = sorted((word for word in schema if word in CHECKS), key=lambda word: word != "type")
    return all(CHECKS[word](value, schema[word], schema) for word in type_first)


def _fits_others(value: Any, told: Any, schema: Any) -> bool:
    others = [one for name, one in value.items() if name not in schema.get("properties", {})]
    return all(fits(one, told) for one in others) if isinstance(told, dict) else told or not others


PYTHON_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
CHECKS: dict[str, Callable[[Any, Any, Any], bool]] = {
    "contentSchema": lambda value, told, _: fits(json.loads(value), told),
    "type": lambda value, told, _: (
        isinstance(value, PYTHON_TYPES[told]) and (told == "boolean") >= isinstance(value, bool)
    ),
    "enum": lambda value, told, _: value in told,
    "const": lambda value, told, _: value == told,
    "anyOf": lambda value, told, _: any(fits(value, one) for one in told),
    "required": lambda value, told, _: value.keys() >= set(told),
    "properties": lambda value, told, _: all(fits(value[name], one) for name, one in told.items() if name in value),
    "additionalProperties": _fits_others,
    "items": lambda value, told, _: all(fits(one, told) for one in value),
    "minItems": lambda value, told, _: len(value) >= told,
    "maxItems": lambda value, told, _: len(value) <= told,
    "minLength": lambda value, told, _: not isinstance(value, str) or len(value) >= told,
    "maxLength": lambda value, told, _: not isinstance(value, str) or len(value) <= told,
    "pattern": lambda value, told, _: not isinstance(value, str) or bool(re.search(told, value)),
    "minimum": lambda value, told, _: value >= told,
    "maximum": lambda value, told, _: value <= told,
    "exclusiveMinimum": lambda value, told, _: value > told,
    "exclusiveMaximum": lambda value, told, _: value < told,
}


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
    assert documented == {problem.slug for problem in EVERY_PROBLEM} - {"client-gone"}


def test_headers_of_answers_are_documented(shared: Shared, openapi: Any) -> None:
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            assert "405" in operation["responses"]
            for response in operation["responses"].values():
                assert {"X-Request-ID", "Server-Timing"} <= response["headers"].keys()
            wrong = shared.request("DELETE", path)
            assert wrong.status_code == 405
            for answer in (wrong, shared.request(method, path)):
                documented = operation["responses"][str(answer.status_code)]["headers"]
                told = {name.lower() for name in documented} | {"content-type", "content-length"}
                assert set(answer.headers) <= told


def test_the_root_leads_programs_to_links(shared: Shared, openapi: Any) -> None:
    answer = shared.get("/")
    assert (answer.status_code, answer.headers["vary"]) == (200, "Accept")
    links = answer.json()
    assert links["version"] == __version__ == openapi["info"]["version"]
    assert links["tasks"] == [*TASKS, *JSON_ONLY]
    for name in ("docs", "openapi", "models", "ready", "metrics"):
        assert shared.get(links[name]).status_code == 200
    assert shared.request("HEAD", "/").status_code == 200
    assert shared.request("POST", "/").status_code == 405
