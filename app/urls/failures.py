"""Why an image is not fetched: what the client is told, which is little, and what the log is."""

from __future__ import annotations

from app.errors import (
    BytesFullError,
    ImageHostError,
    ImageSlowError,
    ImageTooLargeError,
    ImageUrlError,
    QueueFullError,
    ServiceError,
    TooManyBytesError,
    UnsupportedMediaError,
)

NOT_ALLOWED = "The image's URL is not allowed, or leads nowhere."  # tells nothing about the network
RESULTS: dict[type[ServiceError], str] = {  # labels of a metric
    ImageUrlError: "refused",
    ImageHostError: "failed",
    ImageSlowError: "slow",
    ImageTooLargeError: "too-large",
    TooManyBytesError: "too-large",
    UnsupportedMediaError: "unsupported",
    BytesFullError: "no-room",
    QueueFullError: "no-place",
}


class NotFetchedError(Exception):
    """`error` is for the client, and not before that time (monotonic); `reason` for the log."""

    def __init__(self, error: ServiceError, reason: str, not_before: float = 0.0) -> None:
        super().__init__(reason)
        self.error = error
        self.reason = reason
        self.not_before = not_before
