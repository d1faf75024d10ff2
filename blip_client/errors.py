"""What can go wrong when a service is asked. The arguments are those of `__init__`, so that errors can be pickled."""

from __future__ import annotations


class BlipError(Exception):
    """Any of the errors below."""


class ProblemError(BlipError):
    """The service, or a proxy before it, answered with an error.

    `type` is the problem's for programs, "/errors/queue-full" for example (RFC 9457), or "about:blank" where the answer
    is no problem+json; `retry_after` is in seconds."""

    def __init__(
        self,
        status: int,
        type: str,  # noqa: A002
        detail: str,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status, type, detail, request_id, retry_after)
        self.status = status
        self.type = type
        self.detail = detail
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status} {self.type}: {self.detail}{request}"


class UnreachableError(BlipError):
    """No answer: no connection could be made, it broke, or the answer took too long (`timed_out`)."""

    def __init__(self, detail: str, timed_out: bool = False) -> None:
        super().__init__(detail, timed_out)
        self.detail = detail
        self.timed_out = timed_out

    def __str__(self) -> str:
        return self.detail


class AnswerError(BlipError):
    """An answer that is not blip-serve's: is the address right, and the service not older than this client?"""
