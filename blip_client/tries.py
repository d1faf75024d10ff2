"""When to try again, and how long to wait first: policy alone, without clock, dice or network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blip_client.errors import BlipError, ProblemError, UnreachableError

FULL = (429, 503)  # the service says when to come back
ONCE = (502, 504)  # may have been bad luck: work that took too long will mostly do so again


@dataclass(frozen=True, slots=True)
class Try:
    """What came of one try, for `on_try`."""

    number: int  # of this request's tries, from 1
    error: BlipError | None  # None: answered
    wait_seconds: float | None  # before the next try; None: there is none


@dataclass(frozen=True, slots=True)
class Retrying:
    """429 and 503 wait as long as `Retry-After` says, and a little more, so that not all come back at once. Failed
    connections wait twice as long each time. 502, 504 and an answer that took too long are tried once more, all other
    errors never."""

    retries: int = 5
    backoff_seconds: float = 0.5  # at first
    longest_wait_seconds: float = 60.0  # where the service wants more, its error is raised

    def wait_seconds(self, errors: Sequence[BlipError], draw: float) -> float | None:
        """Before the next try, after these errors of all tries so far; None: give up. `draw`: from [0, 1)."""
        last = errors[-1]
        if len(errors) > self.retries or not _may_pass(errors):
            return None
        if isinstance(last, ProblemError) and last.retry_after is not None:
            wait = last.retry_after + draw * max(last.retry_after / 2, self.backoff_seconds)  # never before
            return wait if last.retry_after <= self.longest_wait_seconds else None
        backoff = min(self.backoff_seconds * 2.0 ** (len(errors) - 1), self.longest_wait_seconds)
        return backoff * (1 + draw) / 2


def _may_pass(errors: Sequence[BlipError]) -> bool:
    match last := errors[-1]:
        case ProblemError() if last.status in FULL:
            return True
        case UnreachableError(timed_out=False):
            return True
        case _:
            return _is_slow(last) and sum(map(_is_slow, errors)) == 1


def _is_slow(error: BlipError) -> bool:
    if isinstance(error, ProblemError):
        return error.status in ONCE
    return isinstance(error, UnreachableError) and error.timed_out
