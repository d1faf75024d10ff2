"""Whose fault an error is: policy alone."""

from __future__ import annotations

from dataclasses import dataclass

from app.bulk.pacing import FULL
from app.start.bulk import UsageError
from blip_client import AnswerError, BlipError, ProblemError, UnreachableError

PATIENCE_SECONDS = 600.0  # in which a service that is too full, or was there and is away, answers nobody
LOST_ROUNDS = 3  # of all retries, in which others get through but this picture breaks each connection
PAUSE_SECONDS = 1.0  # after the client gave up, where the service does not say how long
BAD_GATEWAY, TOO_SLOW = 502, 504  # a proxy with no service behind it, as images are not sent by URL
FORBIDDEN, UNKNOWN = (401, 403), (404, 405)
OF_THE_OPTIONS = "/errors/invalid-input"


class StoppedError(Exception):
    """The run cannot go on; the message is one line."""


@dataclass(frozen=True, slots=True)
class Situation:
    num_lost: int  # of all its retries that this picture has had, those that were lost while others got through
    others_were_answered: bool  # in this round
    any_was_answered: bool  # in this run
    idle_seconds: float  # since one was
    has_texts: bool = False  # of its own, which may be wrong
    stopping: bool = False


def verdict(error: BlipError, now: Situation) -> Exception | None:
    """None: it is nobody's, and the picture is asked about again. Else what is to be raised: the error itself if it is
    the picture's; StoppedError, UsageError if the service or the options are at fault: both end the run."""
    is_over = now.idle_seconds + (retry_after(error) or 0.0) > PATIENCE_SECONDS
    match error:
        case _ if is_away(error) and now.num_lost < LOST_ROUNDS:
            if not now.others_were_answered and (is_over or now.stopping or not now.any_was_answered):
                return StoppedError(f"the service cannot be reached: {_detail(error)}")
            return None
        case ProblemError() if error.status in FULL and not now.stopping:
            return StoppedError(f"the service answers nothing: {error.detail}") if is_over else None
        case UnreachableError(timed_out=True) | ProblemError(status=504) if is_over:
            return StoppedError(f"the service answers nothing: {_detail(error)}")
        case ProblemError() if error.status in FORBIDDEN:
            return StoppedError(f"{error.detail} (BLIP_API_KEY holds the key)")
        case ProblemError() if error.status < 400:
            return StoppedError(f"the service is not at this address: {error.detail}")
        case ProblemError() if error.status in UNKNOWN:
            return UsageError(error.detail)
        case ProblemError() if error.type == OF_THE_OPTIONS and not (now.any_was_answered or now.has_texts):
            return UsageError(error.detail)
        case AnswerError() if not now.any_was_answered:
            return StoppedError(f"{error}")
        case _:
            return error


def is_away(error: BlipError) -> bool:
    return (isinstance(error, UnreachableError) and not error.timed_out) or _status(error) == BAD_GATEWAY


def is_heard(error: BlipError) -> bool:
    """A service that says no to a picture is there."""
    return _status(error) not in (None, *FULL, BAD_GATEWAY, TOO_SLOW)


def pause_seconds(error: BlipError, draw: float) -> float:
    """Before the client begins again, which does not wait for long itself, or not at all without retries. `draw`: from
    [0, 1)."""
    return (retry_after(error) or PAUSE_SECONDS) * (1 + draw / 2)


def retry_after(error: BlipError) -> float | None:
    return error.retry_after if isinstance(error, ProblemError) else None


def _status(error: BlipError) -> int | None:
    return error.status if isinstance(error, ProblemError) else None


def _detail(error: BlipError) -> str:
    return error.detail if isinstance(error, ProblemError) else str(error)
