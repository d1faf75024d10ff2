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
from app.bulk.pacing import PacedTransport
from app.bulk.pictures import Limits, read
from app.bulk.plan import Picture
from app.bulk.progress import Progress
from app.bulk.results import Failure, Result
from app.bulk.verdicts import Situation, StoppedError, is_away, is_heard, pause_seconds, verdict
from app.bulk.window import Window
from app.bulk.writers.writer import OutputError, Writer
from blip_client import AnswerError, AsyncClient, BlipError, ProblemError

LOOKAHEAD = 8  # pictures that are read while those before them are asked about
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EPIPE)  # the next result fares no better


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
        """Raises what `verdict` says."""
        num_lost = 0
        while True:
            before = self._num_answered
            try:
                result = await self.job.ask(self.client, image, picture)
            except (LookupError, ValueError) as error:
                raise AnswerError(f"not an answer to what was asked: {error}") from None
            except BlipError as error:
                others = self._num_answered > before
                num_lost += others and is_away(error)
                if (told := verdict(error, self._situation(num_lost, others, bool(picture.texts)))) is not None:
                    self._answered_at = time.monotonic() if is_heard(error) else self._answered_at
                    raise told from None
                await sleep(pause_seconds(error, random.random()))  # noqa: S311
            else:
                self._num_answered += 1
                self._answered_at = time.monotonic()
                return result

    def _situation(self, num_lost: int, others: bool, has_texts: bool) -> Situation:
        idle_seconds = time.monotonic() - self._answered_at
        return Situation(num_lost, others, self._num_answered > 0, idle_seconds, has_texts, self.stopping)

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
