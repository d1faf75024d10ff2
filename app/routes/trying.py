"""The forms of /docs with which a request is tried, and the script that sends them. Without it the page is to read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

SCRIPT = """\
"use strict";
const key = document.getElementById("key");

for (const form of document.querySelectorAll("form")) {
  form.querySelector("button").disabled = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask(form);
  });
}

async function ask(form) {
  const output = form.querySelector("output");
  const headers = key.value ? { "X-API-Key": key.value } : {};
  const method = form.dataset.method;
  const path = form.dataset.path.replace(/{(\\w+)}/g, (_, name) => encodeURIComponent(form.elements[name].value));
  const json = form.querySelector("[data-json]");
  const body = json ? json.value : method === "POST" ? filled(form) : undefined;
  if (json) headers["Content-Type"] = "application/json";
  const began = performance.now();
  output.textContent = "...";
  try {
    const response = await fetch(path, { method, body, headers });
    const text = await response.text();
    const isJson = /json/.test(response.headers.get("Content-Type"));
    const seconds = ((performance.now() - began) / 1000).toFixed(2);
    output.textContent = `${response.status} after ${seconds} s\\n${isJson ? JSON.stringify(JSON.parse(text), null, 2) : text}`;
  } catch (error) {
    output.textContent = `No answer: ${error.message}`;
  }
}

// What is left empty is left out; a list has one item a line.
function filled(form) {
  const body = new FormData();
  for (const [name, value] of new FormData(form)) {
    const items = "list" in form.elements[name].dataset ? value.split(/\\r?\\n/) : [value];
    for (const item of items) {
      if (item instanceof File ? item.size : item.trim()) body.append(name, item);
    }
  }
  return body;
}
"""  # noqa: E501
KEY = (
    '<p><label>API key, if the service asks for one: <input id="key" type="password" autocomplete="off"></label></p>'
    '<script src="docs/try.js" defer></script>'
)


def form(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    """Sends the operation as multipart, as JSON where there is nothing else, or without a body. Its path is relative:
    right behind any prefix."""
    bodies = operation.get("requestBody", {}).get("content", {})
    content = bodies.get("multipart/form-data", {"schema": {}})
    schema, example = content["schema"], content.get("example", {})
    needed = schema.get("required", ())
    yield f'<form data-method="{method.upper()}" data-path="{escape(path.lstrip("/"))}">'
    for one in operation.get("parameters", ()):
        if one["in"] == "path":
            yield f"<label>{escape(one['name'])} {_control(one['name'], one['schema'], '')}</label>"
    if [*bodies] == ["application/json"]:
        text = escape(json.dumps(bodies["application/json"]["example"], indent=2))
        yield f'<textarea data-json rows="12" cols="80">{text}</textarea>'
    for name, field in schema.get("properties", {}).items():
        value = example.get(name, "") if name in needed else ""
        told = f"<small>{escape(field.get('description', ''))}</small>"
        yield f"<label>{escape(name)} {_control(name, field, value)} {told}</label>"
    yield "<button disabled>Try it</button><output></output></form>"


def _control(name: str, field: dict[str, Any], value: object) -> str:
    """`value`: what it holds at first, where it is a text or a list."""
    kinds = [kind for kind in _kinds(field) if kind.get("type") != "null"]
    kind, called = kinds[0], f'name="{escape(name)}"'
    if any("binary" in (one.get("format"), one.get("items", {}).get("format")) for one in kinds):
        return f'<input type="file" accept="image/*" {called}{" multiple" if kind.get("type") == "array" else ""}>'
    if choices := ["true", "false"] if kind.get("type") == "boolean" else kind.get("enum"):
        rows = "".join(f"<option>{escape(one)}</option>" for one in ("", *choices))
        return f"<select {called}>{rows}</select>"
    if any(one.get("type") == "array" for one in kinds):
        lines = escape("\n".join(map(str, value if isinstance(value, list) else [value])))
        return f'<textarea {called} data-list placeholder="one a line">{lines}</textarea>'
    if kind.get("type") in ("integer", "number"):
        return f'<input type="number" {called}{_bounds(kind, field.get("default"))}>'
    return f'<input {called} value="{escape(str(value))}">'


def _kinds(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for one in schema.get("anyOf", ()):
        yield from _kinds(one)
    if "anyOf" not in schema:
        yield schema


def _bounds(kind: dict[str, Any], default: object) -> str:
    step = 1 if kind["type"] == "integer" else "any"
    told = {"min": kind.get("minimum"), "max": kind.get("maximum"), "step": step, "placeholder": default}
    return "".join(f' {word}="{one}"' for word, one in told.items() if one is not None)
