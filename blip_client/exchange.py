"""What both clients do alike: who is asked, what an answer means, and what follows from it."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar, cast

import httpx
from pydantic import ValidationError

from blip_client.errors import AnswerError, BlipError, ProblemError, UnreachableError
from blip_client.requests import Request
from blip_client.tries import Retrying, Try
from blip_client.version import __version__

T = TypeVar("T")
DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_SECONDS = 10.0
MOST_DETAIL_CHARS = 500
# A connection that could not be made, or broke; and an answer that cannot be unpacked. What else httpx raises is no
# matter of luck.
PASSING = (
    httpx.NetworkError,
    httpx.TimeoutException,
    httpx.RemoteProtocolError,
    httpx.ProxyError,
    httpx.DecodingError,
)


def options(url: str | None, api_key: str | None, timeout_seconds: float) -> dict[str, Any]:
    """The arguments of an httpx client. Raises ValueError."""
    url = url or os.environ.get("BLIP_URL") or DEFAULT_URL
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError(f"the address {url!r} does not begin with http:// or https://")
    key = (api_key or os.environ.get("BLIP_API_KEY") or "").strip()  # files of secrets end in a line break
    if not (key.isascii() and key.isprintable()):  # else httpx tells it in its error
        raise ValueError("the API key has characters that no header can have")
    return {
        "base_url": url,
        "headers": {"User-Agent": f"blip-client/{__version__}", "Accept": "application/json"}
        | ({"Authorization": f"Bearer {key}"} if key else {}),
        "timeout": httpx.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds), pool=None),
        "limits": httpx.Limits(max_connections=None),  # how many requests there are at once is the caller's affair
    }


def message(request: Request[Any], body: bytes | None) -> dict[str, Any]:
    """The arguments of httpx's `request`."""
    headers = {} if body is None else {"Content-Type": "application/json"}
    return {"method": request.method, "url": request.path, "content": body, "headers": headers}


@dataclass(slots=True)
class Exchange:
    """One request, until it is answered or given up."""

    request: Request[Any]
    retrying: Retrying
    on_try: Callable[[Try], None] | None
    errors: list[BlipError] = field(default_factory=list)
    answer: Any = None

    def heard(self, response: httpx.Response) -> float | None:
        """Seconds to wait before the next try; None: the answer is there. Raises the error that is given up on."""
        try:
            self.answer = answer_of(self.request, response)
        except BlipError as error:
            return self._failed(error)
        self._tell(Try(len(self.errors) + 1, None, None))
        return None

    def not_heard(self, error: httpx.HTTPError) -> float:
        """As `heard`, of what httpx raised."""
        if isinstance(error, httpx.DecodingError):
            return self._failed(AnswerError(f"not an answer of blip-serve's {self.request.path}: {error}"))
        timed_out = isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout)
        told = f"{error.request.url.host} ({type(error).__name__}: {error})"
        return self._failed(UnreachableError(f"no answer from {told}", timed_out))

    def _failed(self, error: BlipError) -> float:
        self.errors.append(error)
        wait = self.retrying.wait_seconds(self.errors, random.random())  # noqa: S311
        self._tell(Try(len(self.errors), error, wait))
        if wait is None:
            raise error
        return wait

    def _tell(self, outcome: Try) -> None:
        if self.on_try:
            self.on_try(outcome)


def answer_of(request: Request[T], response: httpx.Response) -> T:
    """Raises ProblemError, AnswerError."""
    if not response.is_success:
        raise problem_of(response)
    try:
        return cast("T", request.result.model_validate_json(response.content))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise AnswerError(f"not an answer of blip-serve's {request.path}: {place or 'body'}: {first['msg']}") from None


def problem_of(response: httpx.Response) -> ProblemError:
    """Also of what is no problem+json, as a proxy answers."""
    try:
        told = json.loads(response.content)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        told = {}
    status = f"{response.status_code} {response.reason_phrase}".strip()
    location = f", to {response.headers['location']}" if response.is_redirect else ""
    return ProblemError(
        response.status_code,
        str(told.get("type", "about:blank")),
        str(told.get("detail", status + location))[:MOST_DETAIL_CHARS],
        str(told["request_id"]) if "request_id" in told else response.headers.get("x-request-id"),
        retry_after_seconds(response.headers.get("retry-after", ""), datetime.now(UTC)),
    )


def retry_after_seconds(value: str, now: datetime) -> float | None:
    """Of the header, which has seconds or, from proxies, a date (RFC 9110, 10.2.3)."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        then = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds())
