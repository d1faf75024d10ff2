"""How a client is told what went wrong: one exception, one status, one problem+json."""

from __future__ import annotations

import json
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.errors import (
    BadImageError,
    BatchFailedError,
    BodyTooLargeError,
    BytesFullError,
    ClientGoneError,
    DeadlineExceededError,
    DecodersBusyError,
    DrainingError,
    EngineDownError,
    ImageHostError,
    ImageSlowError,
    ImageTooLargeError,
    ImageUrlError,
    InvalidInputError,
    MalformedError,
    NotReadyError,
    QueueFullError,
    SlowBodyError,
    TooManyBytesError,
    TransferCodingError,
    UnauthorizedError,
    UnknownModelError,
    UnknownRouteError,
    UnsupportedMediaError,
)
from models.base import InputError


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
    UnknownRouteError: Problem(404, "unknown-route", "No such route"),
    UnknownModelError: Problem(404, "unknown-model", "No such model is served"),
    SlowBodyError: Problem(408, "slow-body", "The request body came too slowly"),
    BodyTooLargeError: Problem(413, "body-too-large", "The request body is too large"),
    ImageTooLargeError: Problem(413, "image-too-large", "The image that a URL leads to is too large"),
    TooManyBytesError: Problem(413, "too-many-bytes", "The request needs more bytes than the service has"),
    UnsupportedMediaError: Problem(415, "unsupported-media", "Not an image in a format that is allowed"),
    InvalidInputError: Problem(422, "invalid-input", "The input is not acceptable"),
    InputError: Problem(422, "invalid-input", "The input is not acceptable"),
    BadImageError: Problem(422, "bad-image", "The image is broken or too large"),
    ImageUrlError: Problem(422, "image-url", "The URL of an image cannot be used"),
    QueueFullError: Problem(429, "queue-full", "The service is at its limit", retry_after_seconds=1),
    BytesFullError: Problem(429, "bytes-full", "The service is at its limit", retry_after_seconds=1),
    ClientGoneError: Problem(499, "client-gone", "The client left"),
    BatchFailedError: Problem(500, "batch-failed", "The model failed on this input"),
    TransferCodingError: Problem(501, "transfer-coding", "The transfer coding is not supported"),
    ImageHostError: Problem(502, "image-host", "The host of an image does not answer as it should"),
    NotReadyError: Problem(503, "not-ready", "The service is starting", retry_after_seconds=5),
    DrainingError: Problem(503, "draining", "The service is stopping", retry_after_seconds=5),
    DecodersBusyError: Problem(503, "decoders-busy", "The service cannot decode images now", retry_after_seconds=5),
    EngineDownError: Problem(503, "device-lost", "The service lost its device", retry_after_seconds=30),
    DeadlineExceededError: Problem(504, "deadline", "The request took too long"),
    ImageSlowError: Problem(504, "image-slow", "The host of an image is too slow"),
}
ROUTING = {
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
