"""The client's types are those of /openapi.json, what it sends and what it reads: neither drifts."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest

from app import __version__
from app.wire.documentation import schema_of
from blip_client import AsyncClient, Client, requests, version
from blip_client.requests import Request
from tests.app.support import lab, run

REQUESTS: list[type[Request[Any]]] = [
    one
    for one in vars(requests).values()
    if isinstance(one, type) and issubclass(one, Request) and hasattr(one, "path")
]
POSTS = [one for one in REQUESTS if one.method == "POST"]
IDS = [one.path for one in REQUESTS]
IMAGES = {"image", "images", "example", "query", "documents"}  # each in its own form, which test_clients.py sends
NOT_OFFERED = {
    "/embed": {"encoding"},  # always the short one: the result has numbers
    "/rerank": {"texts", "return_text", "raw_scores"},  # text-embeddings-inference's names
}
# What a type is, without what is allowed of its values.
KEPT = {"type", "enum", "required"}


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    async def get() -> dict[str, Any]:
        async with lab() as service:
            told: dict[str, Any] = (await service.client.get("/openapi.json")).json()
            return told

    return run(get)


def shape(schema: dict[str, Any]) -> dict[str, Any]:
    """Null is dropped where a field may be left out: it says the same."""
    kept = {word: sorted(told) if isinstance(told, list) else told for word, told in schema.items() if word in KEPT}
    if isinstance(inner := schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = shape(inner)
    if "items" in schema:
        kept["items"] = shape(schema["items"])
    if "anyOf" in schema:
        kept["anyOf"] = sorted(map(shape, schema["anyOf"]), key=str)
    if "properties" in schema:
        needed = schema.get("required", ())
        kept["properties"] = {
            name: shape(one if name in needed else without_null(one)) for name, one in schema["properties"].items()
        }
    return kept


def without_null(schema: dict[str, Any]) -> dict[str, Any]:
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    return kinds[0] if len(kinds) == 1 else {**schema, "anyOf": kinds} if kinds else schema


def ours(schema: dict[str, Any]) -> dict[str, Any]:
    """Of several shapes of a body the first; the others are those of other services' clients."""
    first: dict[str, Any] = schema if "properties" in schema else schema["anyOf"][0]
    return first


def test_every_task_has_a_request_and_a_method_of_both_clients(openapi: dict[str, Any]) -> None:
    posts = {path for path, methods in openapi["paths"].items() if "post" in methods and not path.startswith("/v1")}
    assert set(IDS) == posts | {"/models"}
    for request in REQUESTS:
        for client in (Client, AsyncClient):
            method = getattr(client, request.path[1:])
            parameters = list(inspect.signature(method).parameters)
            assert parameters == ["self", *inspect.signature(request).parameters]
            assert method.__doc__ == request.__doc__
            assert inspect.iscoroutinefunction(method) == (client is AsyncClient)


@pytest.mark.parametrize("request_type", REQUESTS, ids=IDS)
def test_what_is_read_is_what_is_answered(request_type: type[Request[Any]], openapi: dict[str, Any]) -> None:
    answers = openapi["paths"][request_type.path][request_type.method.lower()]["responses"]
    told = ours(answers["200"]["content"]["application/json"]["schema"])
    assert shape(schema_of(request_type.result)) == shape(told)


@pytest.mark.parametrize("request_type", POSTS, ids=[one.path for one in POSTS])
def test_what_can_be_asked_can_be_passed(request_type: type[Request[Any]], openapi: dict[str, Any]) -> None:
    body = ours(openapi["paths"][request_type.path]["post"]["requestBody"]["content"]["application/json"]["schema"])
    parameters = inspect.signature(request_type).parameters
    hints = {name: hint for name, hint in get_type_hints(request_type).items() if name in parameters}
    options = body["properties"].keys() - NOT_OFFERED.get(request_type.path, set())
    assert hints.keys() - IMAGES == options - IMAGES
    assert hints.keys() & IMAGES <= options
    needed = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    assert needed - IMAGES == set(body.get("required", ())) - IMAGES
    for name in hints.keys() - IMAGES:
        mine, theirs = schema_of(hints[name]), body["properties"][name]
        assert shape(without_null(mine)) == shape(without_null(theirs)), name


def test_the_client_has_the_services_version() -> None:
    assert version.__version__ == __version__
