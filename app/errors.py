"""What can go wrong with a request, and what the client gets: one exception, one status, one problem+json."""

from __future__ import annotations

import json
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.responses import Response

from models.base import InputError


class ServiceError(Exception):
    """`detail` is for the client: it never holds a key, a stack trace or the content of a request."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class RefusedError(ServiceError):
    """Refused. Counted in `blip_rejected_total` if no work had been done yet."""


class MalformedError(ServiceError):
    """The body cannot be parsed."""


class UnauthorizedError(RefusedError):
    """No key, or a wrong one."""


class UnknownModelError(ServiceError):
    """No served model has this name."""


class SlowBodyError(RefusedError):
    """The body came too slowly."""


class BodyTooLargeError(RefusedError):
    """More bytes than one body may have."""


class UnsupportedMediaError(ServiceError):
    """Not an image, or not in an allowed form."""


class InvalidInputError(ServiceError):
    """Well-formed, but not acceptable: a field, a count, a length."""


class BadImageError(ServiceError):
    """An image of an allowed format that is broken or too large."""


class QueueFullError(RefusedError):
    """Too many work items wait, or more work than can be done in time."""

    def __init__(self, detail: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class BytesFullError(RefusedError):
    """Too many bytes are in flight."""


class BatchFailedError(ServiceError):
    """A batch failed, and this item failed again on its own."""


class NotReadyError(RefusedError):
    """The models are not loaded yet."""


class DrainingError(RefusedError):
    """The process is about to end."""


class EngineDownError(RefusedError):
    """The device, or the thread that owns it, is gone."""


class TransferCodingError(ServiceError):
    """A transfer coding other than chunked."""


class DeadlineExceededError(ServiceError):
    """The request's time is up."""


class ClientGoneError(ServiceError):
    """The client left. Nobody reads this answer: it is for logs and metrics (499, as in nginx)."""


@dataclass(frozen=True, slots=True)
class Problem:
    status: int
    slug: str
    title: str
    retry_after_seconds: int | None = None


INTERNAL = Problem(500, "internal", "The service failed")
PROBLEMS: dict[type[Exception], Problem] = {
    MalformedError: Problem(400, "malformed", "The request cannot be parsed"),
    UnauthorizedError: Problem(401, "unauthorized", "A valid API key is needed"),
    UnknownModelError: Problem(404, "unknown-model", "No such model is served"),
    SlowBodyError: Problem(408, "slow-body", "The request body came too slowly"),
    BodyTooLargeError: Problem(413, "body-too-large", "The request body is too large"),
    UnsupportedMediaError: Problem(415, "unsupported-media", "Not an image in a format that is allowed"),
    InvalidInputError: Problem(422, "invalid-input", "The input is not acceptable"),
    InputError: Problem(422, "invalid-input", "The input is not acceptable"),
    BadImageError: Problem(422, "bad-image", "The image is broken or too large"),
    QueueFullError: Problem(429, "queue-full", "The service is at its limit", retry_after_seconds=1),
    BytesFullError: Problem(429, "bytes-full", "The service is at its limit", retry_after_seconds=1),
    ClientGoneError: Problem(499, "client-gone", "The client left"),
    BatchFailedError: Problem(500, "batch-failed", "The model failed on this input"),
    TransferCodingError: Problem(501, "transfer-coding", "The transfer coding is not supported"),
    NotReadyError: Problem(503, "not-ready", "The service is starting", retry_after_seconds=5),
    DrainingError: Problem(503, "draining", "The service is stopping", retry_after_seconds=5),
    EngineDownError: Problem(503, "device-lost", "The service lost its device", retry_after_seconds=30),
    DeadlineExceededError: Problem(504, "deadline", "The request took too long"),
}
ROUTING = {
    404: Problem(404, "unknown-route", "No such route"),
    405: Problem(405, "method-not-allowed", "The route has another method"),
}
HEAD_TOO_LARGE = Problem(431, "head-too-large", "The request head is too large")
SLOW_HEAD = Problem(408, "slow-head", "The request head came too slowly")
EVERY_PROBLEM = (*PROBLEMS.values(), *ROUTING.values(), INTERNAL, HEAD_TOO_LARGE, SLOW_HEAD)


def problem_of(error: Exception) -> Problem:
    if isinstance(error, HTTPException):
        return ROUTING.get(error.status_code, INTERNAL)
    return next((PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS), INTERNAL)


def problem_body(problem: Problem, detail: str, request_id: str) -> dict[str, object]:
    return {
        "type": f"/errors/{problem.slug}",
        "title": problem.title,
        "status": problem.status,
        "detail": detail,
        "request_id": request_id,
    }


def problem_response(error: Exception, request_id: str) -> Response:
    """Every error answer is made here (RFC 9457)."""
    problem = problem_of(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if (seconds := getattr(error, "retry_after_seconds", None) or problem.retry_after_seconds) is not None:
        headers["Retry-After"] = str(seconds)
    detail = problem.title if problem is INTERNAL or isinstance(error, HTTPException) else str(error)
    body = json.dumps(problem_body(problem, detail, request_id), separators=(",", ":")).encode()
    return Response(body, problem.status, headers, media_type="application/problem+json")
