"""What /openapi.json says about the routes, made from the models that validate and the table of problems."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from app.answers import Problem
from app.errors import INTERNAL, PROBLEMS, ROUTING, problem_body
from app.schemas import Fields
from models.base import Task

# 32 x 32, PNG
RED_SQUARE = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAKElEQVR42u3NQQ0AAAgEoNP+nTWFDzcoQE1udQQCgUAgEAgEAsGTYAGj"
    "xAE/G/Q2tQAAAABJRU5ErkJggg=="
)
EXAMPLES: dict[Task, tuple[dict[str, Any], dict[str, Any]]] = {
    Task.CAPTION: (
        {"image": RED_SQUARE, "num_captions": 2},
        {
            "model": "blip",
            "captions": [
                {
                    "text": "a small red square",
                    "confidence": 0.93,
                    "alternatives": [{"text": "a red square", "confidence": 0.41}],
                }
            ],
        },
    ),
    Task.VQA: (
        {"image": RED_SQUARE, "question": "what color is it?", "candidates": ["red", "blue"]},
        {
            "model": "blip",
            "answers": [
                {
                    "question": "what color is it?",
                    "answer": "red",
                    "confidence": 0.97,
                    "candidates": [{"answer": "red", "probability": 0.97}, {"answer": "blue", "probability": 0.03}],
                }
            ],
        },
    ),
    Task.MATCH: (
        {"images": [RED_SQUARE], "text": ["a red square", "a blue circle"]},
        {
            "model": "blip",
            "scores": [
                [
                    {"itm": 0.98, "itm_logits": [-2.1, 1.8], "itc": 0.41},
                    {"itm": 0.02, "itm_logits": [1.9, -2.0], "itc": 0.11},
                ]
            ],
        },
    ),
    Task.EMBED: (
        {"image": RED_SQUARE, "text": "a red square", "encoding": "base64"},
        {
            "model": "blip",
            "dimensions": 2,
            "images": [{"embedding": "mpkZP83MTD8="}],
            "texts": [{"embedding": "zcxMP5qZGT8="}],
        },
    ),
}
SUMMARIES = {
    Task.CAPTION: "Describe images",
    Task.VQA: "Answer questions about an image",
    Task.MATCH: "Score images against texts",
    Task.EMBED: "Embed images and texts",
}
TASK_STATUSES = (400, 401, 404, 408, 413, 415, 422, 429, 500, 503, 504)


def document(task: Task, fields: type[Fields], answer: Any) -> dict[str, Any]:
    """The keyword arguments of a task's route."""
    schema = schema_of(fields)
    request, response = EXAMPLES[task]
    return {
        "tags": ["tasks"],
        "summary": SUMMARIES[task],
        "responses": answers(answer, example=response) | {status: PROBLEM[status] for status in TASK_STATUSES},
        "openapi_extra": {
            "parameters": [_query(name, field, schema) for name, field in _flat(schema).items()] + HEADERS,
            "requestBody": {"required": True, "content": _forms(fields, schema, request)},
        },
    }


def answers(answer: Any, *further_statuses: int, example: Any = None) -> dict[int | str, dict[str, Any]]:
    content: dict[str, Any] = {"schema": schema_of(answer)}
    if example is not None:
        content["example"] = example
    description = "The answer" if example is not None else "The state"
    return {
        status: {"description": description, "content": {"application/json": content}}
        for status in (200, *further_statuses)
    }


def schema_of(type_: Any) -> dict[str, Any]:
    """With definitions in place, as OpenAPI has no local ones."""
    schema = TypeAdapter(type_).json_schema()
    definitions = schema.pop("$defs", {})

    def inline(node: Any) -> Any:
        if isinstance(node, list):
            return [inline(each) for each in node]
        if not isinstance(node, dict):
            return node
        if reference := node.get("$ref"):
            return inline(definitions[reference.rpartition("/")[2]])
        return {key: inline(value) for key, value in node.items()}

    inlined: dict[str, Any] = inline(schema)
    return inlined


def _forms(fields: type[Fields], schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    """The three forms of one request."""
    fewest, most = fields.num_images
    encoded = {"type": "string", "description": "base64, or a data:image/...;base64, URI"}
    in_json = {"image": encoded}
    file: dict[str, Any] = {"type": "string", "format": "binary"}
    if most != 1:
        in_json["images"] = {"type": "array", "items": encoded, "description": "in place of `image`"}  # type: ignore[dict-item]
        file = {"type": "array", "items": file}
    properties = schema["properties"]
    required = schema.get("required", [])
    flat = {name: value for name, value in example.items() if name not in ("image", "images")}
    return {
        "multipart/form-data": {
            "schema": {
                **schema,
                "properties": {"image": file, **_flat(schema)},
                "required": [*required, *(["image"] if fewest else [])],
            },
            "example": {"image": "(a file)", **flat},
        },
        "application/json": {"schema": {**schema, "properties": {**in_json, **properties}}, "example": example},
        "image/*": {"schema": {"type": "string", "format": "binary"}},
    }


def _flat(schema: dict[str, Any]) -> dict[str, Any]:
    """The fields that forms and queries can hold."""
    return {name: field for name, field in schema["properties"].items() if name != "history"}


def _query(name: str, field: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    needed = " (required there)" if name in schema.get("required", []) else ""
    return {
        "name": name,
        "in": "query",
        "required": False,
        "schema": field,
        "description": f"raw image body only{needed}",
    }


def _problem(status: int) -> dict[str, Any]:
    """Every problem with this status, as an example each."""
    problems = [problem for problem in (*PROBLEMS.values(), *ROUTING.values(), INTERNAL) if problem.status == status]
    examples = {problem.slug: {"value": problem_body(problem, problem.title + ".", "3f0c1d9a")} for problem in problems}
    response: dict[str, Any] = {
        "description": "; ".join(dict.fromkeys(problem.title for problem in problems)),
        "content": {"application/problem+json": {"schema": schema_of(Problem), "examples": examples}},
    }
    if any(problem.retry_after_seconds for problem in problems):
        response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return response


HEADERS = [
    {"name": "X-Request-ID", "in": "header", "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"}},
    {"name": "X-Request-Timeout", "in": "header", "schema": {"type": "number"}, "description": "seconds"},
]
PROBLEM = {status: _problem(status) for status in TASK_STATUSES}
