"""The async queue in front of the model runners, as the event loop sees it.

Who touches what: futures belong to the event loop; runners and generations to the device thread (device.py); the
queue (batching.py) to both, under `_wake`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Container, Hashable, Sequence

from app.engine.batching import BatchQueue, WorkItem
from app.engine.device import DeviceThread, Outcome, too_late
from app.engine.turns import Rates
from app.errors import EngineDownError
from app.metrics import Metrics
from models.base import Item, ModelRunner
from models.outputs import Output


class StageTimes:
    """Where one request's time went: seconds in each stage, of its slowest work item; with `keep_spans`, also when each
    stage of each item began and ended, in monotonic seconds."""

    def __init__(self, metrics: Metrics, *, keep_spans: bool = False) -> None:
        self._metrics = metrics
        self._keep_spans = keep_spans
        self.seconds: dict[str, float] = {}
        self.spans: list[tuple[str, float, float]] = []

    def record(self, stage: str, began: float, ended: float) -> None:
        seconds = ended - began
        self._metrics.stage_seconds[stage].observe(seconds)
        self.seconds[stage] = max(seconds, self.seconds.get(stage, 0.0))
        if self._keep_spans:
            self.spans.append((stage, began, ended))


class Engine:
    """Runs work items in batches on one device, one device call at a time.

    `start`, `submit` and `stop` belong to one event loop; the health properties to any thread.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        max_batch_size: int,
        max_cache_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._queue = BatchQueue(max_batch_size, max_cache_bytes)
        self._wake = threading.Condition()
        self._device = DeviceThread(
            self._queue,
            self._wake,
            metrics,
            clock,
            deliver=lambda outcomes: self._post(self._deliver, outcomes),
            ended=lambda reason: self._post(self._go_down, reason),
        )
        self._pending: set[WorkItem] = set()  # with open futures
        self._down: str | None = "the service has not started"  # why nothing is accepted

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._down = None
        self._device.start()

    async def stop(self, join_seconds: float = 5.0) -> None:
        """Start nothing more, fail what is left, and wait for the device thread, but not for ever: a call may hang."""
        self._device.stop()
        self._go_down("the service stops")
        if self._device.ident is not None:
            await asyncio.to_thread(self._device.join, join_seconds)

    async def submit(
        self, runner: ModelRunner, item: Item, *, deadline: float | None, times: StageTimes, owner: Hashable = None
    ) -> Output:
        """Run one item, in some batch, before `deadline` (monotonic seconds). `owner`: the request it is of.

        Work that is cancelled or late leaves the queue unrun, or its generation at the next token.
        Raises DeadlineExceededError, BatchFailedError, EngineDownError.
        """
        if self._down is not None:
            raise EngineDownError(self._down)
        now = self._clock()
        if deadline is not None and deadline <= now:
            raise too_late()
        future: asyncio.Future[Output] = self._loop.create_future()
        work = WorkItem(runner, item, deadline, now, future, owner)
        # A timer too, because the device thread may hang in a call.
        timer = None if deadline is None else self._loop.call_later(deadline - now, self._expire, work)
        self._pending.add(work)
        try:
            with self._wake:
                self._queue.append(work)
                self._wake.notify()
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            self._pending.discard(work)
            if future.cancelled() or not future.done():  # the caller was cancelled
                self._abandon(work)
            self._record(work, times)

    @property
    def alive(self) -> bool:
        return self._down is None and self._device.is_alive()

    def busy_seconds(self) -> float:
        """How long the current device call has been running; 0 between calls."""
        return self._device.busy_seconds()

    @property
    def generation_cache_bytes(self) -> int:
        """KV-cache bytes reserved for the rows in generation."""
        return self._device.cache_bytes

    @property
    def queue_items(self) -> int:
        return len(self._queue)

    @property
    def owners(self) -> Container[Hashable]:
        """The requests that have something in the queue."""
        return self._queue.owners

    @property
    def rates(self) -> Rates:
        return self._device.rates

    def queue_oldest_seconds(self) -> float:
        with self._wake:
            return self._queue.oldest_seconds(self._clock())

    def _expire(self, work: WorkItem) -> None:
        if not work.future.done():
            work.future.set_exception(too_late())
        self._abandon(work)

    def _abandon(self, work: WorkItem) -> None:
        work.abandoned = True
        with self._wake:
            self._queue.discard(work)

    def _record(self, work: WorkItem, times: StageTimes) -> None:
        now = self._clock()
        started = now if work.started is None else work.started
        times.record("queue", work.enqueued, started)
        if work.started is not None:
            times.record(work.item.op, started, now if work.finished is None else work.finished)

    def _deliver(self, outcomes: Sequence[Outcome]) -> None:
        for work, outcome in outcomes:
            if work.future.done():
                continue  # the client left, or the deadline passed
            if isinstance(outcome, Exception):
                work.future.set_exception(outcome)
            else:
                work.future.set_result(outcome)

    def _go_down(self, reason: str) -> None:
        """Nothing will run any more: fail all pending work."""
        self._down = self._down or reason
        for work in self._pending:
            work.abandoned = True
            if not work.future.done():
                work.future.set_exception(EngineDownError(reason))
        with self._wake:
            self._queue.clear()  # last: what the device thread puts back from now on is abandoned, and so left out

    def _post(self, function: Callable[..., None], *args: object) -> None:
        """Call a function on the event loop, from the device thread."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the event loop is closed: nobody waits any more
            self._device.stop()
