"""GET /docs: /openapi.json as a page to read and to try, without files from other hosts."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html import escape
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from app.routes.trying import KEY, SCRIPT, form

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } th { text-align: left }
th, td { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8884; vertical-align: top }
pre { background: #8882; padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere }
h2 { margin-top: 3rem } summary { cursor: pointer } input, select, textarea { font: inherit; min-width: 0 }
form label { display: grid; grid-template-columns: 11rem 16rem 1fr; gap: 1rem; margin: .4rem 0; align-items: start }
output { display: block; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 30rem; overflow: auto }
"""
BOUNDS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
    "minItems": "length ≥",
    "maxItems": "length ≤",
    "minLength": "characters ≥",
    "maxLength": "characters ≤",
}
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    f"frame-ancestors 'none'; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'"
)
router = APIRouter()


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    return HTMLResponse(page(request.app.openapi()), headers={"Content-Security-Policy": POLICY})


@router.get("/docs/try.js", include_in_schema=False)
async def script() -> Response:
    return Response(SCRIPT, media_type="text/javascript")


def page(openapi: dict[str, Any]) -> str:
    title = escape(openapi["info"]["title"])
    routes = [
        part
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
        for part in _operation(method, path, operation)
    ]
    return "\n".join(
        (
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
            f"<title>{title}</title><style>{STYLE}</style>",
            f"<h1>{title}</h1><p>{escape(openapi['info'].get('summary', ''))}.",
            'The same for programs: <a href="openapi.json">openapi.json</a>.</p>',
            KEY,
            *routes,
        )
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<h2>{method.upper()} {escape(path)}</h2>"
    yield f"<p>{escape(operation.get('description') or operation['summary'])}</p>"
    yield _folded("Try it", "".join(form(method, path, operation)))
    if parameters := operation.get("parameters"):
        schemas = {one["name"]: one["schema"] | {"description": _told(one)} for one in parameters}
        yield _folded("Query and headers", _table({"properties": schemas}))
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield _folded(f"Request: {media}", _content(content), is_open=media == "application/json")
    for status, response in operation["responses"].items():
        headers = {
            header: one["schema"] | {"description": one["description"]} for header, one in response["headers"].items()
        }
        told = "".join(_content(content) for content in response["content"].values())
        yield _folded(f"{status}: {response['description']}", told + _table({"properties": headers}))


def _told(parameter: dict[str, Any]) -> str:
    return "; ".join(filter(None, (parameter["schema"].get("description"), parameter.get("description"))))


def _content(content: dict[str, Any]) -> str:
    examples = [example["value"] for example in content.get("examples", {}).values()] or [content["example"]]
    shown = [one if isinstance(one, str) else json.dumps(one, indent=2) for one in examples]
    return _table(content["schema"]) + "".join(f"<pre>{escape(one)}</pre>" for one in shown)


def _folded(summary: str, content: str, *, is_open: bool = False) -> str:
    return f"<details{' open' if is_open else ''}><summary>{escape(summary)}</summary>{content}</details>"


def _table(schema: dict[str, Any]) -> str:
    rows = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in _rows(schema)]
    if not rows:
        return f"<p>{escape(_type(schema))}: {escape(schema.get('description', 'text'))}</p>"
    head = "<tr><th>name</th><th>type</th><th>default</th><th>description</th></tr>"
    return f"<table>{head}{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _rows(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and description of each property, those within others too."""
    for name, field in schema.get("properties", {}).items():
        default = json.dumps(field["default"]) if field.get("default") is not None else ""
        needed = "required" if name in schema.get("required", []) else default
        yield prefix + name, _type(field), needed, field.get("description", "")
        yield from _rows(field, f"{prefix}{name}.")
    if text := schema.get("contentSchema"):
        yield from _rows(text, prefix)
    if isinstance(values := schema.get("additionalProperties"), dict):
        yield from _rows(values, f"{prefix}*.")
    for inner in (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())):
        yield from _rows(inner, prefix)


def _type(schema: dict[str, Any]) -> str:
    if choices := schema.get("anyOf"):
        kind = " or ".join(map(_type, choices))
    elif choices := schema.get("enum"):
        kind = " or ".join(map(json.dumps, choices))
    elif schema.get("type") == "array":
        kind = f"list of {_type(schema['items'])}"
    else:
        kind = "file" if schema.get("format") == "binary" else schema.get("type", "any")
    return ", ".join((kind, *(f"{sign} {schema[bound]}" for bound, sign in BOUNDS.items() if bound in schema)))
