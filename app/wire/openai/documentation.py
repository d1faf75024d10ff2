"""What /openapi.json says about the routes whose bodies are always JSON."""

from __future__ import annotations

import json
from typing import Any

from app.problems import EVERY_PROBLEM, HEAD_TOO_LARGE, SLOW_HEAD
from app.wire.documentation import (
    ANSWER_HEADERS,
    HEADERS,
    PROBLEM_HEADERS,
    TASK_STATUSES,
    Responses,
    answers,
    problems,
    schema_of,
)
from app.wire.openai.answers import ErrorAnswer
from app.wire.openai.errors import STATUSES, openai_body


def document_json(
    summary: str, fields: Any, answer: Any, examples: tuple[dict[str, Any], dict[str, Any]], errors: Responses
) -> dict[str, Any]:
    """The keyword arguments of its route."""
    request, response = examples
    body = {"application/json": {"schema": schema_of(fields), "example": request}}
    return {
        "tags": ["of other services"],
        "summary": summary,
        "responses": answers(answer, response) | errors,
        "openapi_extra": {"parameters": HEADERS, "requestBody": {"required": True, "content": body}},
    }


def events(chunk: Any, example: dict[str, Any]) -> dict[str, Any]:
    """The content of a stream, by one of its events, whose data are JSON. An error ends it, in place of [DONE]."""
    json_text = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": schema_of(chunk | ErrorAnswer),
    }
    data = {"anyOf": [{"type": "string", "const": "[DONE]"}, json_text], "description": "JSON; at the end [DONE]"}
    schema = {"type": "object", "properties": {"data": data}, "required": ["data"]}
    return {"text/event-stream": {"schema": schema, "example": {"data": json.dumps(example)}}}


def openai_problems(*statuses: int) -> Responses:
    """Errors in OpenAI's shape; but for those of a head, which are found before there is a path."""
    told = {STATUSES.get(status, status) for status in statuses} - {HEAD_TOO_LARGE.status}
    return {status: _problem(status) for status in sorted(told)} | problems(HEAD_TOO_LARGE.status)


def _problem(status: int) -> dict[str, Any]:
    every = (problem for problem in EVERY_PROBLEM if problem not in (HEAD_TOO_LARGE, SLOW_HEAD))
    found = [problem for problem in every if STATUSES.get(problem.status, problem.status) == status]
    examples = {one.slug: {"value": openai_body(status, one.slug, one.title + ".")} for one in found}
    return {
        "description": "; ".join(dict.fromkeys(problem.title for problem in found)),
        "headers": ANSWER_HEADERS | PROBLEM_HEADERS.get(status, {}),
        "content": {"application/json": {"schema": schema_of(ErrorAnswer), "examples": examples}},
    }


OPENAI_PROBLEMS = openai_problems(*TASK_STATUSES)
PLAIN_PROBLEMS = problems(*TASK_STATUSES)
