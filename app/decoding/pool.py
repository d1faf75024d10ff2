"""Decoders' processes: pictures are given to them, and they are killed and replaced."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from app.decoding.chatter import Chatter
from app.decoding.lanes import Lanes
from app.decoding.process import DecoderProcess
from app.decoding.protocol import DONE, ERRORS, GO, OPENED, Buffer, Decoded, HoldBytes, Job, Kind, frame
from app.errors import BadImageError, BytesFullError
from app.metrics import Metrics
from app.settings import Settings

log = logging.getLogger("blip.decoding")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a decoder may take."""

    acknowledge_seconds: float = 0.025  # to say that it has a picture: then another one gets it as well
    silent_seconds: float = 2.0  # then it is killed
    grace_seconds: float = 0.25  # to finish a picture that nobody waits for
    start_seconds: float = 30.0
    dear_seconds: float = 0.4  # of a CPU, by the header: more is dear
    cheap_cpu_seconds: float = 2.0  # then it was dear after all, and begins again
    dear_cpu_seconds: float = 20.0
    decode_seconds: float = 20.0  # by the clock
    held_seconds: float = 5.0  # all decoders at once: then the service is not ready
    restart_seconds: float = 1.0  # after one that could not start

    def cpu_seconds(self, *, is_dear: bool) -> float:
        return self.dear_cpu_seconds if is_dear else self.cheap_cpu_seconds


@dataclass(eq=False, slots=True)
class Ticket:
    """A picture, and who waits for it."""

    job: Job
    hold: HoldBytes
    answer: asyncio.Future[Decoded]
    is_dear: bool = False
    decoders: set[DecoderProcess] = field(default_factory=set)  # that have it
    goes_on: DecoderProcess | None = None  # the first of them that had opened it


def decoder_processes(settings: Settings, metrics: Metrics) -> Decoders:
    """One for each CPU thread. Two at least: dear pictures leave one to the others."""
    return Decoders(max(2, settings.threads), metrics)


class Decoders:
    """Belongs to one event loop, which is to live as long as its thread: decoders end with that thread."""

    def __init__(self, num_decoders: int, metrics: Metrics, patience: Patience = Patience()) -> None:
        self._num_decoders = num_decoders
        self._patience = patience
        self._metrics = metrics
        self._lanes: Lanes[Ticket, DecoderProcess] = Lanes()
        self._decoders: set[DecoderProcess] = set()
        self._tickets: set[Ticket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._chatter: Chatter | None = None
        self._closing = asyncio.Event()
        self._freed_at = time.monotonic()  # when one was free last, if none is
        metrics.observe("decoders", "Decoder processes", lambda: len(self._decoders))
        metrics.observe("decoders_busy", "Decoder processes that have a picture", lambda: len(self.busy_pids))
        metrics.observe("decoders_dear", "Decoder processes that have a dear one", lambda: self._lanes.num_with_dear)
        metrics.observe("decodes_waiting", "Pictures that wait for a decoder", lambda: self._lanes.num_waiting)

    async def start(self) -> None:
        self._freed_at = time.monotonic()
        self._chatter = Chatter()
        await self._chatter.start()
        for _ in range(self._num_decoders):
            await self._start_one()

    async def close(self) -> None:
        """Kill all of them, and wait until they have ended."""
        if self._chatter is None:
            return
        self._closing.set()
        for ticket in self._tickets:
            ticket.answer.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for decoder in self._decoders:
            decoder.kill("closed")
        await asyncio.gather(*(decoder.buried for decoder in self._decoders))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._chatter.close()
        self._chatter = None

    @property
    def pids(self) -> list[int]:
        return [decoder.pid for decoder in self._decoders]

    @property
    def busy_pids(self) -> list[int]:
        return [decoder.pid for decoder in self._decoders if decoder.ticket is not None]

    @property
    def num_free(self) -> int:
        return self._lanes.num_free

    def sickness(self) -> str | None:
        """Why no picture is decoded now; None: they are."""
        if self._lanes.num_free or time.monotonic() - self._freed_at < self._patience.held_seconds:
            return None
        return "No decoder has been free for a while."

    async def decode(self, job: Job, hold: HoldBytes) -> Decoded:
        """Who leaves, by being cancelled, has the decoder killed unless it finishes soon.

        Raises BadImageError, UnsupportedMediaError, BytesFullError.
        """
        ticket = Ticket(job, hold, asyncio.get_running_loop().create_future())
        self._tickets.add(ticket)
        self._lanes.add(ticket)
        self._give_out()
        try:
            return await ticket.answer
        finally:
            self._tickets.discard(ticket)
            self._lanes.discard(ticket)
            for decoder in ticket.decoders if ticket.answer.cancelled() else ():
                decoder.after(self._patience.grace_seconds, lambda one: one.kill("cancelled"))

    # --- giving pictures out ---

    def _give_out(self) -> None:
        while (assignment := self._lanes.assign()) is not None:
            ticket, decoder, is_dear = assignment
            self._freed_at = time.monotonic()  # it was free until now
            ticket.decoders.add(decoder)
            decoder.begin(ticket, is_lowered=is_dear)
            decoder.after(self._patience.acknowledge_seconds, self._no_word)
            head = ticket.job.pack(is_dear=is_dear, cpu_seconds=self._patience.cpu_seconds(is_dear=is_dear))
            decoder.send(head, ticket.job.data)

    def _no_word(self, decoder: DecoderProcess) -> None:
        """Another one gets its picture as well, and it gets no other."""
        if decoder.has_spoken():
            return
        self._lanes.is_silent(decoder)
        decoder.after(self._patience.silent_seconds, self._still_no_word)
        if decoder.ticket is not None and not decoder.ticket.answer.done():
            self._put_back(decoder.ticket)

    def _put_back(self, ticket: Ticket) -> None:
        if ticket.is_dear:
            self._lanes.add_dear(ticket)
        else:
            self._lanes.add_first(ticket)
        self._give_out()

    def _still_no_word(self, decoder: DecoderProcess) -> None:
        if not decoder.has_spoken():
            decoder.kill("silent")

    # --- what decoders say ---

    def heard(self, decoder: DecoderProcess, kind: Kind, payload: Buffer) -> None:
        match kind:
            case Kind.READY:
                decoder.is_started = True
                self._set_free(decoder)
            case Kind.TAKEN:
                self._taken(decoder)
            case Kind.OPENED:
                self._opened(decoder, *OPENED.unpack(payload))
            case Kind.DONE:
                self._done(decoder, payload)
            case Kind.REFUSED:
                self._refused(decoder, ERRORS[payload[0]](bytes(payload[1:]).decode(errors="replace")))

    def _taken(self, decoder: DecoderProcess) -> None:
        decoder.has_taken = True
        decoder.after(self._patience.decode_seconds, lambda one: one.kill("timeout"))
        self._lanes.answers(decoder)
        if decoder.ticket is not None:
            self._lanes.discard(decoder.ticket)

    def _opened(self, decoder: DecoderProcess, num_bytes: int, answer_bytes: int, seconds: float) -> None:
        ticket = decoder.ticket
        if ticket is None or ticket.answer.done() or ticket.goes_on is not None:
            self._drop(decoder)
            return
        ticket.is_dear |= seconds > self._patience.dear_seconds
        if ticket.is_dear and not self._lanes.let_be_dear(decoder):
            self._lanes.add_dear(ticket)
            self._drop(decoder)
            return
        ticket.goes_on = decoder
        try:
            decoder.held.enter_context(ticket.hold(num_bytes, answer_bytes))
        except BytesFullError as error:
            ticket.answer.set_exception(error)
            self._drop(decoder)
            return
        decoder.expect(answer_bytes)
        lower = ticket.is_dear and not decoder.is_lowered
        cpu_seconds = self._patience.cpu_seconds(is_dear=ticket.is_dear)
        decoder.send(frame(Kind.GO, GO.pack(lower, cpu_seconds)))

    def _drop(self, decoder: DecoderProcess) -> None:
        decoder.send(frame(Kind.DROP))
        self._set_free(decoder)

    def _done(self, decoder: DecoderProcess, payload: Buffer) -> None:
        ticket = decoder.ticket
        if ticket is not None and not ticket.answer.done():
            began, decoded, width, height = DONE.unpack_from(payload)
            data, size = payload[DONE.size :], (width, height)
            ticket.job.check(data, size)
            ticket.answer.set_result(Decoded(data, ticket.job.framing, size, began, decoded))
        self._set_free(decoder)

    def _refused(self, decoder: DecoderProcess, error: Exception) -> None:
        ticket = decoder.ticket
        if ticket is not None and not ticket.answer.done() and ticket.goes_on in (None, decoder):
            ticket.answer.set_exception(error)
        self._set_free(decoder)

    def _set_free(self, decoder: DecoderProcess) -> None:
        decoder.stop_timer()
        self._release(decoder)
        if decoder.killed_because is None:
            self._lanes.free(decoder)
            self._freed_at = time.monotonic()
        self._give_out()

    def _release(self, decoder: DecoderProcess) -> None:
        decoder.held.close()
        if decoder.ticket is not None:
            decoder.ticket.decoders.discard(decoder)
            decoder.ticket = None

    # --- processes ---

    async def _start_one(self) -> None:
        assert self._chatter is not None
        try:
            decoder = DecoderProcess(self, self._chatter.descriptor)
        except OSError as error:
            log.error("cannot start a decoder: %s", error)
            self._run(self._replace(None))
            return
        self._decoders.add(decoder)
        decoder.after(self._patience.start_seconds, lambda one: one.kill("silent"))
        await decoder.connect()

    def lost(self, decoder: DecoderProcess) -> None:
        self._lanes.leave(decoder)
        self._run(self._bury(decoder))

    async def _bury(self, decoder: DecoderProcess) -> None:
        code = await decoder.end()
        reason = decoder.killed_because or ("overran" if code == -signal.SIGPROF else None)
        ticket = decoder.ticket
        self._release(decoder)
        self._decoders.discard(decoder)
        decoder.buried.set_result(None)
        if reason == "closed":
            return
        if reason is None:
            self._metrics.decoders_crashed.inc()
        else:
            self._metrics.decoders_killed.labels(reason).inc()
        if ticket is not None and not ticket.answer.done() and ticket.goes_on in (None, decoder):
            self._settle(ticket, reason, has_taken=decoder.has_taken)
        await self._replace(decoder)

    def _settle(self, ticket: Ticket, reason: str | None, *, has_taken: bool) -> None:
        """A picture whose decoder has ended: nobody else goes on with it."""
        if reason == "timeout" or (reason == "overran" and ticket.is_dear):
            ticket.answer.set_exception(BadImageError("The image takes too long to decode."))
        elif reason == "overran":
            ticket.is_dear, ticket.goes_on = True, None
            self._put_back(ticket)
        elif has_taken:
            ticket.answer.set_exception(BadImageError("The image is broken: its decoder crashed."))
        elif not ticket.decoders:
            self._put_back(ticket)

    async def _replace(self, decoder: DecoderProcess | None) -> None:
        if decoder is None or not (decoder.is_started or decoder.killed_because):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._patience.restart_seconds)
        if not self._closing.is_set():
            await self._start_one()

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
