"""The endpoint table: every path that does work. What is in it is admitted, bounded and has a deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.problems import problem_response
from models.base import Task

Endpoints = Mapping[str, "Endpoint"]  # by path; their method is POST
Function = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    path: str
    task: Task  # its label in metrics and logs
    function: Function
    documentation: Mapping[str, Any]  # of its route in /openapi.json, as FastAPI's keyword arguments
    tell: Callable[[Exception, str], Response] = problem_response  # an error and the request's id -> the answer
