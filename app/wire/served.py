"""/openapi.json as one service gives it: with its limits, its keys, and examples that name a model it serves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.settings import Settings
from app.wire.answers import ModelsAnswer
from app.wire.examples import MODEL, MODELS_EXAMPLE

Names = Mapping[str, Sequence[str]]  # by path: the served models that have the task, the default one first
BOUNDS = ("maxItems", "maxLength")
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def as_served(openapi: dict[str, Any], settings: Settings, names: Names, models: ModelsAnswer) -> dict[str, Any]:
    """`openapi`, with what depends on the service put in. Where keys are set no model is named: it needs no key."""
    _bound(openapi, settings)
    if settings.api_keys:
        _ask_for_keys(openapi)
        _answer(openapi, "get", "/models")["example"] = MODELS_EXAMPLE | {"limits": models["limits"]}
        return openapi
    first = [model["name"] for model in models["models"][:1]]
    for path, operations in openapi["paths"].items():
        if served := names.get(path, first):
            _name_in_examples(operations, served[0])
    for path, served in names.items():
        if served:
            _suggest(openapi["paths"][path]["post"], served)
    _answer(openapi, "get", "/models")["example"] = models
    return openapi


def _name_in_examples(node: Any, name: str) -> None:
    """A served model's name in place of MODEL."""
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _name_in_examples(each, name)
    if isinstance(node, dict) and "example" in node:
        node["example"] = json.loads(json.dumps(node["example"]).replace(MODEL, name))


def _bound(node: Any, settings: Settings) -> None:
    """A word like x-maxItems names the setting that has its number."""
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _bound(each, settings)
    if isinstance(node, dict):
        for bound in BOUNDS:
            if (setting := node.pop(f"x-{bound}", None)) is not None:
                node[bound] = getattr(settings, setting)


def _answer(openapi: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    content: dict[str, Any] = openapi["paths"][path][method]["responses"]["200"]["content"]["application/json"]
    return content


def _suggest(operation: dict[str, Any], served: Sequence[str]) -> None:
    """Names for the field `model`, wherever it can be."""
    bodies = [content["schema"] for content in operation["requestBody"]["content"].values()]
    shapes = [shape.get("properties", {}) for body in bodies for shape in (body, *body.get("anyOf", ()))]
    fields = [shape["model"] for shape in shapes if "model" in shape]
    for field in (*fields, *(one["schema"] for one in operation["parameters"] if one["name"] == "model")):
        field["examples"] = list(served)


def _ask_for_keys(openapi: dict[str, Any]) -> None:
    openapi.setdefault("components", {})["securitySchemes"] = SCHEMES
    openapi["security"] = [{name: []} for name in SCHEMES]
    for path, methods in openapi["paths"].items():
        if path.startswith("/health/"):
            methods["get"]["security"] = []
