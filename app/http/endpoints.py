"""The endpoint table: every path that does work. What is in it is admitted, bounded and has a deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.problems import problem_response
from app.wire.openai.errors import openai_response
from models.base import Task

Endpoints = Mapping[str, "Endpoint"]  # by path; their method is POST
Function = Callable[[Request], Awaitable[Response]]
Tell = Callable[[Exception, str], Response]  # an error and the request's id -> the answer


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    path: str
    task: Task  # which checkpoint of a model does its work
    function: Function
    documentation: Mapping[str, Any]  # of its route in /openapi.json, as FastAPI's keyword arguments
    tell: Tell = problem_response
    label: str = ""  # in metrics and logs, where it is not the task's name, or not yet
    or_task: Task | None = None  # what it may turn out to be instead, when the body is read

    @property
    def tasks(self) -> tuple[Task, ...]:
        """A model that has one of them can serve it."""
        return (self.task,) if self.or_task is None else (self.task, self.or_task)


def teller(path: str) -> Tell:
    """How errors are told at a path that is not in the table."""
    return openai_response if f"{path}/".startswith("/v1/") else problem_response
