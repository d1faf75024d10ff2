"""What /openapi.json says about the routes, made from the schemas of requests and answers and the table of problems.
What depends on the service, its limits and the names of its models, is put in by app.wire.served."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from app.problems import EVERY_PROBLEM, problem_body
from app.settings import LEAST_TIMEOUT_SECONDS
from app.wire.answers import HealthAnswer, ModelsAnswer, ProblemAnswer
from app.wire.examples import EXAMPLES, METRICS_EXAMPLE, MODELS_EXAMPLE, SUMMARIES
from app.wire.schemas import Fields

Responses = dict[int | str, dict[str, Any]]
ROUTE_STATUSES = (400, 405, 408, 431, 500, 501)  # of any route: also what is refused for its head
TASK_STATUSES = (*ROUTE_STATUSES, 401, 404, 413, 415, 422, 429, 502, 503, 504)
NULL = {"type": "null"}
RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
PROBLEM_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "Bearer"}},
    405: {"Allow": {"schema": {"type": "string"}, "description": "the methods of the route"}},
    429: RETRY_AFTER,
    503: RETRY_AFTER,
}
ANSWER_HEADERS: dict[str, Any] = {
    "X-Request-ID": {"schema": {"type": "string"}, "description": "the client's, or a new one"},
    "Server-Timing": {
        "schema": {"type": "string"},
        "description": "milliseconds of each stage",
        "example": "decode;dur=1.20, total;dur=25.31",
    },
}
HEADERS = [
    {
        "name": "X-Request-ID",
        "in": "header",
        "schema": {"type": "string"},
        "description": "a name for the request, in the answer and in the logs: 1 to 128 of A-Z, a-z, 0-9 and `._-`, or "
        "it is ignored",
    },
    {
        "name": "X-Request-Timeout",
        "in": "header",
        "schema": {"type": "number", "minimum": LEAST_TIMEOUT_SECONDS},
        "description": "seconds; less than the service's own limit",
    },
]


def document(
    task: str,
    fields: type[Fields],
    answer: Any,
    *,
    picture: str | None = None,
    headers: dict[str, str] | None = None,
    also: Any = None,
) -> dict[str, Any]:
    """The keyword arguments of a task's route. `picture`: what is drawn, where the client prefers that to JSON;
    `headers`: what it comes with, and what they tell; `also`: another shape of a JSON body."""
    schema = schema_of(fields)
    request, response = EXAMPLES[task]
    forms = _forms(fields, schema, request)
    if also is not None:
        forms["application/json"]["schema"] = {"anyOf": [forms["application/json"]["schema"], schema_of(also)]}
    told = answers(answer, response)
    if picture is not None:
        binary = {"type": "string", "format": "binary", "description": picture}
        told[200]["content"]["image/png"] = {"schema": binary, "example": "(the bytes of a file)"}
        told[200]["headers"] = ANSWER_HEADERS | {
            name: {"schema": {"type": "string"}, "description": meaning} for name, meaning in (headers or {}).items()
        }
    return {
        "tags": ["tasks"],
        "summary": SUMMARIES[task],
        "responses": told | problems(*TASK_STATUSES),
        "openapi_extra": {
            "parameters": [_query(name, field, schema) for name, field in _flat(schema).items()] + HEADERS,
            "requestBody": {"required": True, "content": forms},
        },
    }


def answers(
    answer: Any, example: Any, *, status: int = 200, description: str = "The answer", media: str = "application/json"
) -> Responses:
    return {
        status: {
            "description": description,
            "headers": ANSWER_HEADERS,
            "content": {media: {"schema": schema_of(answer), "example": example}},
        }
    }


def health(yes: HealthAnswer, no: HealthAnswer, why: str) -> Responses:
    """The two answers of a health check; neither is a problem+json. `why`: what a 503 means."""
    return (
        answers(HealthAnswer, yes) | answers(HealthAnswer, no, status=503, description=why) | problems(*ROUTE_STATUSES)
    )


def schema_of(type_: Any) -> dict[str, Any]:
    """With its definitions inlined: OpenAPI has no local ones."""
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
    encoded = {
        "type": "string",
        "minLength": 1,
        "description": "base64 (either alphabet, in lines or not), a data:...;base64, URI, or, where the operator "
        "allows it, an http or https URL",
    }
    number: dict[str, Any] = {"minItems": fewest} | (
        {"x-maxItems": "max_items"} if most is None else {"maxItems": most}
    )
    several = {"type": "array", "items": encoded, **number}
    in_json: dict[str, Any] = {
        "image": {"anyOf": [encoded, NULL]},
        "images": {"anyOf": [several, NULL], "description": "in place of `image`"},
    }
    file: dict[str, Any] = {"type": "string", "format": "binary", "description": "a file"}
    example_file: Any = "(a file)"
    files = {name: file | {"description": schema["properties"][name]["description"]} for name in fields.pictures}
    if most != 1:
        file = {"type": "array", "items": file, **number, "description": "files, one part each"}
        example_file = [example_file]
    others = {name: value for name, value in example.items() if name not in ("image", "images")}
    needed = [] if fewest else ["text"]  # in place of an image
    return {
        "multipart/form-data": {
            "schema": _with(schema, {"image": file, **_flat(schema), **files}, ["image", *needed]),
            "example": {"image": example_file, **others},
        },
        "application/json": {
            "schema": _with(schema, {**in_json, **schema["properties"]}, [*in_json, *needed]),
            "example": example,
        },
        "image/*": {
            "schema": {"type": "string", "format": "binary", "description": "one image; other fields are in the query"},
            "example": "(the bytes of the file)",
        },
    }


def _with(schema: dict[str, Any], properties: dict[str, Any], any_of: list[str]) -> dict[str, Any]:
    """`schema` with these properties, at least one of `any_of` required."""
    if len(any_of) == 1:
        return {**schema, "properties": properties, "required": [*any_of, *schema.get("required", ())]}
    return {**schema, "properties": properties, "anyOf": [{"required": [name]} for name in any_of]}


def _flat(schema: dict[str, Any]) -> dict[str, Any]:
    """The fields that forms and queries can hold."""
    return {name: _not_null(field) for name, field in schema["properties"].items() if name != "history"}


def _not_null(field: dict[str, Any]) -> dict[str, Any]:
    """JSON alone has null."""
    kinds = [kind for kind in field.get("anyOf", ()) if kind != NULL]
    if len(kinds) == 1:
        return kinds[0] | {word: told for word, told in field.items() if word not in ("anyOf", "default")}
    return field


def _query(name: str, field: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    needed = " (required there)" if name in schema.get("required", []) else ""
    return {
        "name": name,
        "in": "query",
        "required": False,
        "schema": field,
        "description": f"raw image body only{needed}",
    }


def problems(*statuses: int) -> Responses:
    return {status: _problem(status) for status in sorted(statuses)}


def _problem(status: int) -> dict[str, Any]:
    """Every problem with this status, as an example each."""
    found = [problem for problem in EVERY_PROBLEM if problem.status == status]
    examples = {problem.slug: {"value": problem_body(problem, problem.title + ".", "3f0c1d9a")} for problem in found}
    return {
        "description": "; ".join(dict.fromkeys(problem.title for problem in found)),
        "headers": ANSWER_HEADERS | PROBLEM_HEADERS.get(status, {}),
        "content": {"application/problem+json": {"schema": schema_of(ProblemAnswer), "examples": examples}},
    }


LIVE = health(
    {"status": "live"},
    {"status": "failing", "reason": "the device does not answer"},
    "Failing: the models failed to load, or the device thread is dead or stuck. Restart the process",
)
READY = health(
    {"status": "ready"},
    {"status": "not ready", "reason": "The models are not ready: loading."},
    "Not ready: requests are refused while the service is loading or stopping, or after it lost its device",
)
MODELS = answers(ModelsAnswer, MODELS_EXAMPLE) | problems(401, *ROUTE_STATUSES)
METRICS = answers(str, METRICS_EXAMPLE, media="text/plain") | problems(401, *ROUTE_STATUSES)
