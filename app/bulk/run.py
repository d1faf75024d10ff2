"""The loop: pictures in, results out, as many at a time as the service takes."""

from __future__ import annotations

import asyncio
import errno
import random
import time
from asyncio import sleep
from collections.abc import Iterable
from dataclasses import dataclass, field

from app.bulk.failing import Failures
from app.bulk.jobs import Job
from app.bulk.pacing import FULL, PacedTransport
from app.bulk.pictures import Limits, read
from app.bulk.plan import Picture
from app.bulk.progress import Progress
from app.bulk.results import Failure, Result
from app.bulk.window import Window
from app.bulk.writers.writer import OutputError, Writer
from app.start.bulk import UsageError
from blip_client import AnswerError, AsyncClient, BlipError, ProblemError, UnreachableError

LOOKAHEAD = 8  # pictures that are read while those before them are asked about
LOST_ROUNDS = 3  # of all retries, in which others get through but this picture breaks each connection
PATIENCE_SECONDS = 600.0  # in which a service that is too full, or was there and is away, answers nobody
PAUSE_SECONDS = 1.0  # after the client gave up, where the service does not say how long
BAD_GATEWAY = 502  # of a proxy with no service behind it: images are not sent by URL
FORBIDDEN, UNKNOWN = (401, 403), (404, 405)
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EPIPE)  # the next result fares no better
OF_THE_OPTIONS = "/errors/invalid-input"


class StoppedError(Exception):
    """The run cannot go on; the message is one line."""


@dataclass(slots=True)
class Run:
    """`client` asks over `transport`, which paces it by `window`. A picture is asked about until it is answered: only
    what is wrong with it makes it fail. What is wrong with the service or the options ends the run: StoppedError,
    UsageError, OutputError."""

    client: AsyncClient
    job: Job
    writer: Writer
    failures: Failures
    progress: Progress
    window: Window
    transport: PacedTransport
    changed: asyncio.Event  # set whenever there may be room for one more
    limits: Limits | None = None  # above which pictures are made smaller
    min_confidence: float = 0.0
    fail_fast: bool = False
    stopping: bool = False
    _active: set[asyncio.Task[None]] = field(default_factory=set)
    _num_reading: int = 0
    _num_answered: int = 0
    _answered_at: float = field(default_factory=time.monotonic)
    _error: Exception | None = None

    @property
    def num_begun(self) -> int:
        return len(self._active)

    def stop(self) -> None:
        """Takes no more pictures; those that are begun are finished."""
        self.stopping = True
        self.changed.set()

    def cancel(self) -> None:
        self.stop()
        for task in self._active:
            task.cancel()

    async def every(self, pictures: Iterable[Picture]) -> None:
        for picture in pictures:
            await self._room()
            if self.stopping:
                break
            self._num_reading += 1
            task = asyncio.create_task(self._one(picture))
            self._active.add(task)
            task.add_done_callback(self._ended)
        while self._active:
            await asyncio.wait(self._active)
        if self._error is not None:
            raise self._error

    async def _room(self) -> None:
        """Some are read ahead; those that wait to be tried again hold up nobody, as long as they are not too many."""
        while not self.stopping and not self._has_room():
            self.changed.clear()
            await self.changed.wait()

    def _has_room(self) -> bool:
        waiting = self._num_reading + self.transport.num_waiting
        return waiting < LOOKAHEAD and len(self._active) < self.window.most + LOOKAHEAD

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._active.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self._error is None:
            self._error = error if isinstance(error, Exception) else StoppedError(str(error))
            self.cancel()
        self.changed.set()

    async def _one(self, picture: Picture) -> None:
        try:
            try:
                image = await asyncio.to_thread(read, picture.path, self.limits)
            finally:
                self._num_reading -= 1
                self.changed.set()
            result = await self._asked(picture, image)
        except OSError as error:
            self._failed(Failure(picture.path, error.strerror or type(error).__name__))
        except ProblemError as error:
            facts = {"status": error.status, "type": error.type, "request_id": error.request_id}
            self._failed(Failure(picture.path, error.detail, facts))
        except BlipError as error:
            self._failed(Failure(picture.path, str(error)))
        else:
            self._write(result)
        self.progress.advance()

    async def _asked(self, picture: Picture, image: bytes) -> Result:
        num_lost = 0
        while True:
            before = self._num_answered
            try:
                result = await self.job.ask(self.client, image, picture)
            except (LookupError, ValueError) as error:
                raise AnswerError(f"not an answer to what was asked: {error}") from None
            except BlipError as error:
                num_lost += _is_away(error) and self._num_answered > before
                self._check(error, num_lost, self._num_answered > before, bool(picture.texts))
                await sleep(_pause_seconds(error))
            else:
                self._num_answered += 1
                self._answered_at = time.monotonic()
                return result

    def _check(self, error: BlipError, num_lost: int, others_were_answered: bool, has_texts: bool) -> None:
        """Raises the error if it is the picture's, and what ends the run if the service or the options are at fault;
        returns if it is nobody's, and asking goes on. `has_texts`: of its own, which may be wrong."""
        match error:
            case _ if _is_away(error) and num_lost < LOST_ROUNDS:
                if not others_were_answered and (self.stopping or not self._num_answered or self._is_over(error)):
                    raise StoppedError(f"the service cannot be reached: {_detail(error)}") from None
            case ProblemError() if error.status in FULL and not self.stopping:
                if self._is_over(error):
                    raise StoppedError(f"the service answers nothing: {error.detail}") from None
            case UnreachableError(timed_out=True) | ProblemError(status=504) if self._is_over(error):
                raise StoppedError(f"the service answers nothing: {_detail(error)}") from None
            case ProblemError() if error.status in FORBIDDEN:
                raise StoppedError(f"{error.detail} (BLIP_API_KEY holds the key)") from None
            case ProblemError() if error.status < 400:
                raise StoppedError(f"the service is not at this address: {error.detail}") from None
            case ProblemError() if error.status in UNKNOWN:
                raise UsageError(error.detail) from None
            case ProblemError() if error.type == OF_THE_OPTIONS and not (self._num_answered or has_texts):
                raise UsageError(error.detail) from None
            case AnswerError() if not self._num_answered:
                raise StoppedError(f"{error}") from None
            case _:
                self._heard(error)
                raise error

    def _heard(self, error: BlipError) -> None:
        """A service that says no to a picture is there."""
        if _status(error) not in (None, *FULL, BAD_GATEWAY, 504):
            self._answered_at = time.monotonic()

    def _is_over(self, error: BlipError) -> bool:
        waited = time.monotonic() - self._answered_at
        return waited + (_retry_after(error) or 0.0) > PATIENCE_SECONDS

    def _failed(self, failure: Failure) -> None:
        self.progress.num_failed += 1
        self.failures.add(failure)
        if self.fail_fast:
            self.stop()

    def _write(self, result: Result) -> None:
        if result.confidence is not None and result.confidence < self.min_confidence:
            self.progress.num_unsure += 1
            detail = f"the confidence {result.confidence:.3f} is below {self.min_confidence:g}"
            self.failures.add(Failure(result.path, detail, result.record))
            return
        try:
            self.writer.write(result)
        except OSError as error:
            if error.errno in OF_THE_DISK:
                raise OutputError(f"cannot write the result of {result.path}: {error.strerror}") from None
            self._failed(Failure(result.path, f"its result cannot be written: {error.strerror}"))
        else:
            self.progress.num_written += 1


def _is_away(error: BlipError) -> bool:
    return (isinstance(error, UnreachableError) and not error.timed_out) or _status(error) == BAD_GATEWAY


def _status(error: BlipError) -> int | None:
    return error.status if isinstance(error, ProblemError) else None


def _retry_after(error: BlipError) -> float | None:
    return error.retry_after if isinstance(error, ProblemError) else None


def _detail(error: BlipError) -> str:
    return error.detail if isinstance(error, ProblemError) else str(error)


def _pause_seconds(error: BlipError) -> float:
    """Also what the client does not wait for: it has its own limits, and --retries may be 0."""
    return (_retry_after(error) or PAUSE_SECONDS) * (1 + random.random() / 2)  # noqa: S311
