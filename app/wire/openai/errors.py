"""Errors as OpenAI's clients read them: under /v1 alone, in place of problem+json."""

from __future__ import annotations

import json
import re

from starlette.responses import Response

from app.problems import problem_response
from app.wire.openai.answers import ErrorAnswer

# What was asked wrongly is 400 there, whichever way it was.
STATUSES = {415: 400, 422: 400}
TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
CODES = {"unauthorized": "invalid_api_key", "unknown-model": "model_not_found"}
_FIELD = re.compile(r"([a-z_]+(?:: \d+)*): ")


def openai_response(error: Exception, request_id: str) -> Response:
    """The same problem, told in OpenAI's words; with its headers, of which clients honour Retry-After."""
    told = problem_response(error, request_id)
    problem = json.loads(bytes(told.body))
    status = STATUSES.get(told.status_code, told.status_code)
    body = json.dumps(openai_body(status, problem["type"].rpartition("/")[2], problem["detail"]), separators=(",", ":"))
    kept = {name: value for name in ("WWW-Authenticate", "Retry-After", "Allow") if (value := told.headers.get(name))}
    return Response(body.encode(), status, kept, media_type="application/json")


def openai_body(status: int, slug: str, detail: str) -> ErrorAnswer:
    """`param` is the field that the detail begins with."""
    field = _FIELD.match(detail)
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    code = CODES.get(slug, slug.replace("-", "_"))
    return {"error": {"message": detail, "type": kind, "param": field and field[1].replace(": ", "."), "code": code}}
