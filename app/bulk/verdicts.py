"""Whose fault an error is: policy alone."""

from __future__ import annotations

from dataclasses import dataclass

from app.bulk.pacing import FULL
from app.start.bulk import UsageError
from blip_client import AnswerError, BlipError, ProblemError, UnreachableError

PATIENCE_SECONDS = 600.0  # in which a service that is too full answers nobody, before it is given up
LOST_ROUNDS = 3  # of all retries, in which others get through but this picture breaks each connection
FORBIDDEN, UNKNOWN = (401, 403), (404, 405)
OF_THE_OPTIONS = "/errors/invalid-input"


class StoppedError(Exception):
    """The run cannot go on; the message is one line."""


@dataclass(frozen=True, slots=True)
class Situation:
    num_rounds: int  # of all its retries that this picture has had
    others_were_answered: bool  # in this round
    any_was_answered: bool  # in this run
    idle_seconds: float  # since one was


def verdict(error: BlipError, now: Situation) -> Exception | None:
    """None: it is nobody's, and the picture is asked about again. Else what is to be raised: the error itself if it is
    the picture's; StoppedError, UsageError if the service or the options are at fault: both end the run."""
    match error:
        case ProblemError() if error.status in FULL:
            if now.idle_seconds > PATIENCE_SECONDS:
                return StoppedError(f"the service answers nothing: {error.detail}")
            return None
        case UnreachableError(timed_out=False) if now.num_rounds < LOST_ROUNDS:
            if not now.others_were_answered:
                return StoppedError(f"the service cannot be reached: {error.detail}")
            return None
        case ProblemError() if error.status in FORBIDDEN:
            return StoppedError(f"{error.detail} (BLIP_API_KEY holds the key)")
        case ProblemError() if error.status in UNKNOWN:
            return UsageError(error.detail)
        case ProblemError() if error.type == OF_THE_OPTIONS and not now.any_was_answered:
            return UsageError(error.detail)
        case AnswerError() if not now.any_was_answered:
            return StoppedError(f"{error}")
        case _:
            return error
