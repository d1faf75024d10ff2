"""Paths of requests: with or without the prefix of a proxy, and the right one for a near miss."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from starlette.types import Scope

MOST_COMPARED_CHARS = 64  # comparing takes the product of both lengths
LEAST_ALIKE = 0.75


def routed(scope: Scope, prefix: str) -> Scope:
    """A copy for the router. Under `prefix`, whether the proxy stripped it or not; HEAD as GET: the server leaves the
    body out."""
    prefix = prefix or scope.get("root_path", "")
    path = scope["path"]
    if prefix and not f"{path}/".startswith(f"{prefix}/"):
        path = prefix + path
    elif path == prefix:
        path += "/"
    return {
        **scope,
        "path": path,
        "root_path": prefix,
        "method": "GET" if scope["method"] == "HEAD" else scope["method"],
    }


def route_path(scope: Scope) -> str:
    """Of a routed scope: without the prefix."""
    path: str = scope["path"]
    return path[len(scope["root_path"]) :]


def nearest(path: str, known: Collection[str]) -> str | None:
    """Which of the known paths was probably meant."""
    meant = "/" + "/".join(part for part in path[:MOST_COMPARED_CHARS].lower().split("/") if part)
    if meant in known:
        return meant
    return next(iter(difflib.get_close_matches(meant, known, 1, LEAST_ALIKE)), None)
