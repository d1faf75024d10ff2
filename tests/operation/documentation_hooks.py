"""For schemathesis, through SCHEMATHESIS_HOOKS: what a schema cannot say of a request, and a check for JSON."""

from __future__ import annotations

import base64
from typing import Any

import schemathesis
from schemathesis.specs.openapi.checks import negative_data_rejection

from tests.operation.support import EXAMPLE

PICTURE = f"data:image/png;base64,{base64.b64encode(EXAMPLE).decode()}"
LEAST_SECONDS = 10.0  # less would rightly be answered 504


def give_it_a_picture_and_time(_: Any, case: Any, __: Any) -> None:
    """Before a call: strings become pictures, else nothing would get past the decoder; the query goes with a raw body
    alone; there is time to answer."""
    if "X-Request-Timeout" in (case.headers or {}):
        case.headers["X-Request-Timeout"] = _longer(case.headers["X-Request-Timeout"])
    body = case.body
    if not isinstance(body, dict):
        if isinstance(body, str | bytes) and body and str(case.media_type).startswith("image/"):
            case.body = EXAMPLE
        return
    case.query = {}
    picture: Any = base64.b64encode(EXAMPLE).decode() if case.media_type == "application/json" else EXAMPLE
    if case.media_type == "application/json":
        _talk_of(body)
    for name in ("image", "images", "inputs", "example"):
        if isinstance(value := body.get(name), list):
            body[name] = [picture if one and isinstance(one, str | bytes) else one for one in value]
        elif value and isinstance(value, str | bytes):
            body[name] = picture


def _talk_of(node: Any) -> None:
    """Below /v1: messages are the user's, parts are pictures or texts."""
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _talk_of(each)
    if not isinstance(node, dict):
        return
    for name in ("url", "image_url", "image", "data"):
        if node.get(name) and isinstance(node[name], str):
            node[name] = PICTURE
    if isinstance(node.get("role"), str):
        node["role"] = "user"
    if isinstance(node.get("type"), str):
        node["type"] = "image_url" if node.get("image_url") or node.get("data") else "text"


def _longer(seconds: Any) -> Any:
    try:
        return str(max(float(seconds), LEAST_SECONDS)) if float(seconds) >= 0.001 else seconds
    except ValueError:
        return seconds


def invalid_json_is_refused(context: Any, response: Any, case: Any) -> bool | None:
    """In JSON alone: a form cannot tell a list of one from one, or a number from its digits. What is too large is
    refused too, whatever it holds."""
    if case.media_type != JSON or response.status_code == TOO_LARGE:
        return None
    refused: bool | None = negative_data_rejection(context, response, case)
    return refused


JSON, TOO_LARGE = "application/json", 413
schemathesis.hook("before_call")(give_it_a_picture_and_time)
schemathesis.check(invalid_json_is_refused)
