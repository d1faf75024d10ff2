"""The thread that owns the models of one device: it takes batches, steps generations and isolates failures."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from app.engine.batching import BatchKey, BatchQueue, Kind, Rows, WorkItem
from app.engine.turns import Rates, Turns
from app.errors import BatchFailedError, DeadlineExceededError
from app.metrics import Metrics
from models.base import DeviceLostError, Generation, Item, Op
from models.outputs import Output, is_finite

logger = logging.getLogger(__name__)

Outcome = tuple[WorkItem, Output | Exception]


class BadOutputError(Exception):
    """A runner broke its contract; `kind` is the label in the metric."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass(slots=True)
class Running:
    """A running generation and the work items of its rows.

    Items are copied for each attempt: rows are told apart by identity, and an item can be submitted twice, or retried
    while its old row still exists.
    """

    generation: Generation
    rows: dict[Item, WorkItem]
    company: int  # the most rows it ever had; 1: its row has always been alone
    steps: int = 0  # that it has had

    def __post_init__(self) -> None:
        self.join(self.rows)

    @property
    def size(self) -> Rows:
        return Rows(
            len(self.rows),
            max((item.cache_bytes for item in self.rows), default=0),
            tuple((work.last_step - self.steps, id(item.features)) for item, work in self.rows.items()),
        )

    def join(self, newcomers: dict[Item, WorkItem]) -> None:
        self.rows |= newcomers
        for item, work in newcomers.items():
            work.last_step = self.steps + item.num_new_tokens
        self.company = max(self.company, len(self.rows))


class DeviceThread(threading.Thread):
    """Runs what `queue` holds until `stop`, or until the device is lost.

    `wake` guards the queue and is notified when it grows. `deliver` gets all outcomes of a device call at once;
    `ended` gets the reason when the thread ends. Both are called on this thread.
    """

    def __init__(
        self,
        queue: BatchQueue,
        wake: threading.Condition,
        metrics: Metrics,
        clock: Callable[[], float],
        deliver: Callable[[Sequence[Outcome]], None],
        ended: Callable[[str], None],
    ) -> None:
        super().__init__(name="device", daemon=True)
        self._queue = queue
        self._wake = wake
        self._metrics = metrics
        self._clock = clock
        self._deliver = deliver
        self._ended = ended
        self._stopping = False
        self._turns = Turns()
        self.rates = Rates()  # read by the event loop
        self._generations: dict[BatchKey, Running] = {}
        self._call_began: float | None = None
        self.cache_bytes = 0  # KV-cache bytes reserved for the rows in generation

    def stop(self) -> None:
        """Start nothing more. Does not wait for the current call."""
        with self._wake:
            self._stopping = True
            self._wake.notify()

    def busy_seconds(self) -> float:
        """How long the current device call has been running; 0 between calls."""
        began = self._call_began
        return 0.0 if began is None else max(0.0, self._clock() - began)

    def run(self) -> None:
        reason = "the service stops"
        try:
            while self._turn():
                pass
        except BaseException as error:
            reason = "the device is lost"
            logger.critical("the device thread ends: nothing more will run in this process", exc_info=error)
        finally:
            self._generations.clear()
            self._ended(reason)

    def _turn(self) -> bool:
        """One batch of waiting work, or one token for every row: see turns.py. False: stopped."""
        batch: list[WorkItem] = []
        with self._wake:
            while not (self._stopping or self._queue or self._generations):
                self._wake.wait()
            if self._stopping:
                return False
            if not (self._generations and self._turns.is_for_steps()):
                running = {key: one.size for key, one in self._generations.items()}
                batch = self._queue.next_batch(self._clock(), running, self._turns.most_items)
            expired = self._queue.take_expired()
        self._resolve([(work, too_late()) for work in expired])
        began = self._clock()
        if batch:
            self._begin(batch, began)
            self._turns.called(batch[0].key, len(batch), self._clock() - began)
        else:
            for key in tuple(self._generations):
                self._step(key)
            self._turns.stepped(self._clock() - began)
        if not self._generations:
            self._turns.none_runs()
        self.cache_bytes = sum(one.size.bytes for one in self._generations.values())
        return True

    def _begin(self, batch: list[WorkItem], now: float) -> None:
        for work in batch:
            if work.started is None:
                work.started = now
        if batch[0].item.op is Op.GENERATE:
            self._generate(batch)
        else:
            self._forward(batch)

    def _forward(self, batch: list[WorkItem]) -> None:
        """encode, score and localize: a single call gives the outputs."""
        items = [work.item for work in batch]
        runner = batch[0].runner
        calls: dict[Op, Callable[[Sequence[Item]], Sequence[Output]]]
        calls = {Op.ENCODE: runner.encode, Op.SCORE: runner.score, Op.LOCALIZE: runner.localize}
        try:
            with self._device_call(batch[0].kind, len(batch)):
                outputs = calls[items[0].op](items)
                _check(outputs, len(items))
        except DeviceLostError:
            raise
        except Exception as error:
            self._split(batch, error, company=len(batch))
        else:
            self._resolve(list(zip(batch, outputs, strict=True)))

    def _generate(self, batch: list[WorkItem]) -> None:
        """Start a generation, or join the running one."""
        key = batch[0].key
        newcomers = {replace(work.item): work for work in batch}
        running = self._generations.get(key)
        try:
            with self._device_call(key.kind):  # no size: each step reports its own
                if running is None:
                    generation = batch[0].runner.generate(list(newcomers))
                    self._generations[key] = Running(generation, newcomers, company=len(batch))
                else:
                    running.generation.admit(list(newcomers))
                    running.join(newcomers)
        except DeviceLostError:
            raise
        except Exception as error:
            if running is None:
                self._split(batch, error, company=len(batch))
            else:
                # The running rows may be corrupt: they start again, apart from the newcomers.
                del self._generations[key]
                self._put_back([list(running.rows.values()), batch])
                self._report(key, error, len(batch))

    def _step(self, key: BatchKey) -> None:
        """One token for each row of a generation."""
        running = self._generations[key]
        finished: list[tuple[Item, Output]] = []
        try:
            self._drop_abandoned(key, running)
            if running.rows:
                with self._device_call(key.kind, len(running.rows)):
                    finished += running.generation.step()
                    running.steps += 1
                    _check_step(running, finished)
        except DeviceLostError:
            raise
        except Exception as error:
            del self._generations[key]
            self._split(list(running.rows.values()), error, running.company)
            return
        outcomes = [(running.rows.pop(item), output) for item, output in finished]
        if not running.rows:
            del self._generations[key]
        self._resolve(outcomes)

    def _drop_abandoned(self, key: BatchKey, running: Running) -> None:
        now = self._clock()
        leaving = [item for item, work in running.rows.items() if work.abandoned or work.is_expired(now)]
        self._resolve([(running.rows.pop(item), too_late()) for item in leaving])
        if leaving and running.rows:  # else the whole generation is dropped
            with self._device_call(key.kind):
                for item in leaving:
                    running.generation.drop(item)

    @contextmanager
    def _device_call(self, kind: Kind, size: int | None = None) -> Iterator[None]:
        if size is not None:
            self._metrics.batch_size.labels(kind.unit, kind.op).observe(size)
        self._call_began = began = self._clock()
        try:
            yield
        finally:
            self._call_began = None
            self.rates.spent(kind, self._clock() - began)

    def _split(self, batch: list[WorkItem], error: Exception, company: int) -> None:
        """After a failed device call: retry the batch in halves; what fails alone has failed."""
        if company == 1:
            self._resolve([(work, BatchFailedError("the model failed on this input")) for work in batch])
        else:
            middle = len(batch) // 2
            self._put_back([batch[:middle], batch[middle:]])
        self._report(batch[0].key, error, len(batch))

    def _put_back(self, parts: list[list[WorkItem]]) -> None:
        with self._wake:
            self._queue.put_back(parts)

    def _report(self, key: BatchKey, error: Exception, size: int) -> None:
        kind = failure_kind(error)
        self._metrics.batch_failures.labels(key.unit, key.op, kind).inc()
        logger.error("%s: a batch of %d failed to %s (%s)", key.unit, size, key.op, kind, exc_info=error)

    def _resolve(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            now = self._clock()
            for work, _ in outcomes:
                work.finished = now
            for kind, number in Counter(work.kind for work, _ in outcomes).items():
                self.rates.finished(kind, number)
            self._deliver(outcomes)


def too_late() -> DeadlineExceededError:
    return DeadlineExceededError("the deadline passed before the answer was there")


def failure_kind(error: Exception) -> str:
    """The label in the metric. Out-of-memory errors are recognised by name, so that nothing here imports torch."""
    if isinstance(error, BadOutputError):
        return error.kind
    names = {base.__name__ for base in type(error).__mro__}
    return "oom" if names & {"MemoryError", "OutOfMemoryError"} else "error"


def _check(outputs: Sequence[Output], num_items: int) -> None:
    if len(outputs) != num_items:
        raise BadOutputError("count", f"{len(outputs)} outputs for {num_items} items")
    if not all(map(is_finite, outputs)):
        raise BadOutputError("nan", "an output is not finite")


def _check_step(running: Running, finished: Sequence[tuple[Item, Output]]) -> None:
    items = {item for item, _ in finished}
    num_left = len(running.rows) - len(finished)
    if len(items) != len(finished) or not items <= running.rows.keys() or len(running.generation) != num_left:
        raise BadOutputError("count", f"{len(finished)} of {len(running.rows)} rows finished")
    _check([output for _, output in finished], len(finished))
