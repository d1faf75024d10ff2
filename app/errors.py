"""What can go wrong with a request. How a client is told, is in problems.py: decoders raise some, and know no HTTP."""

from __future__ import annotations


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


class UnknownRouteError(ServiceError):
    """No route has this path."""


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


class FetchError(ServiceError):
    """An image cannot be fetched by its URL."""


class ImageUrlError(FetchError):
    """A URL that may not be fetched, or leads nowhere."""


class ImageHostError(FetchError):
    """The host cannot be reached, or does not answer as it should."""


class ImageSlowError(FetchError):
    """The host is too slow."""


class ImageTooLargeError(FetchError):
    """The URL leads to more bytes than a body may have."""


class QueueFullError(RefusedError):
    """Too many work items wait, or more work than can be done in time."""

    def __init__(self, detail: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class BytesFullError(RefusedError):
    """Too many bytes are in flight."""


class TooManyBytesError(RefusedError):
    """More bytes than may be in flight, of this request alone: it would be refused at any time."""


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


class DecodersBusyError(RefusedError):
    """No picture can be decoded: every decoder has been held for long."""


class DeadlineExceededError(ServiceError):
    """The request's time is up."""


class ClientGoneError(ServiceError):
    """The client left. Nobody reads this answer: it is for logs and metrics (499, as in nginx)."""
