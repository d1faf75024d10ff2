"""The parts that one process serves with, and the state that it is in."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import StrEnum

from app.engine.engine import Engine
from app.engine.features import FeatureCache
from app.errors import DrainingError, EngineDownError, InvalidInputError, NotReadyError, ServiceError, UnknownModelError
from app.http.exchange import Exchange
from app.http.inflight import InflightBytes
from app.http.tracing import Tracing
from app.metrics import Metrics
from app.settings import Settings
from models.base import Checkpoint, ServedModel, Task


class Phase(StrEnum):
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed to load"


class Service:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.engine = Engine(
            self.metrics, max_batch_size=settings.max_batch_size, max_cache_bytes=settings.generation_cache_bytes
        )
        self.cache = FeatureCache(settings.feature_cache_bytes, self.metrics)
        self.cpu = ThreadPoolExecutor(settings.threads, thread_name_prefix="cpu")
        self.inflight = InflightBytes(settings.max_inflight_bytes)
        self.tracing = Tracing() if settings.tracing else None
        self.models: dict[str, ServedModel] = {}
        self.phase = Phase.LOADING
        self.failure: Exception | None = None  # why loading failed
        self.exchanges: set[Exchange] = set()  # admitted, not yet answered
        self.approaching: set[Exchange] = set()  # those of them that have not put anything into the queue yet
        self._observe()

    def serve(self, models: list[ServedModel]) -> None:
        """Ready: the models are loaded, checked and warm."""
        self.models = {model.name: model for model in models}
        for model in models:
            for one in model.checkpoints.values():
                revision = one.revision or ""
                labels = model.name, model.family, one.name, revision, one.dtype, one.device
                self.metrics.model_info.labels(*labels).set(1)
        if self.phase is Phase.LOADING:
            self.phase = Phase.READY

    def drain(self) -> None:
        """Accept nothing more; what is accepted goes on."""
        self.phase = Phase.DRAINING
        for exchange in self.exchanges:
            exchange.closing = True

    def abort(self, cause: ServiceError) -> None:
        """Give every accepted request its answer now."""
        for exchange in tuple(self.exchanges):
            exchange.abort(cause)

    async def close(self) -> None:
        await self.cache.close()
        await self.engine.stop(join_seconds=self.settings.farewell_seconds / 3)  # a device call may hang
        self.cpu.shutdown(wait=False, cancel_futures=True)
        if self.tracing is not None:
            self.tracing.close(self.settings.farewell_seconds / 3)

    @property
    def has_room(self) -> bool:
        """Whether a request may come in. Those on their way to the queue count, or a burst would pass all at once."""
        return self.engine.queue_items + len(self.approaching) < self.settings.max_queue_items

    @contextmanager
    def admitted(self, exchange: Exchange) -> Iterator[None]:
        self.exchanges.add(exchange)
        try:
            yield
        finally:
            self.exchanges.discard(exchange)
            self.approaching.discard(exchange)

    def refusal(self) -> ServiceError | None:
        """Why a task cannot be accepted; None: it can."""
        if self.phase is Phase.DRAINING:
            return DrainingError("The service is stopping.")
        if self.phase is not Phase.READY:
            return NotReadyError(f"The models are not ready: {self.phase}.")
        if not self.engine.alive:
            return EngineDownError("The device is lost.")
        return None

    def sickness(self) -> str | None:
        """Why the process should be restarted; None: it is well."""
        if self.phase is Phase.FAILED:
            return "the models failed to load"
        if not self.engine.alive:
            return "the device thread is dead"
        if self.engine.busy_seconds() > self.settings.stuck_seconds:
            return "the device does not answer"
        return None

    def find(self, task: Task, name: str | None) -> tuple[ServedModel, Checkpoint]:
        """The model of this name, or the first that has the task. Raises UnknownModelError, InvalidInputError."""
        if name is not None and name not in self.models:
            raise UnknownModelError(f"No such model. Served: {', '.join(self.models)}.")
        candidates = self.models.values() if name is None else (self.models[name],)
        for model in candidates:
            if task in model.checkpoints:
                return model, model.checkpoints[task]
        raise InvalidInputError(f"model: does not have the task {task}")

    def default_model(self, task: Task) -> str:
        """The name of the model that answers when none is named. Raises InvalidInputError."""
        return self.find(task, None)[0].name

    def _observe(self) -> None:
        observe, engine = self.metrics.observe, self.engine
        observe("queue_items", "Work items that wait", lambda: engine.queue_items)
        observe("queue_oldest_seconds", "How long the oldest work item has waited", engine.queue_oldest_seconds)
        observe("feature_cache_bytes", "Bytes of image features that are kept", lambda: self.cache.bytes)
        observe(
            "generation_cache_bytes",
            "Bytes that the key-value caches of running generations may take",
            lambda: engine.generation_cache_bytes,
        )
        observe("device_call_seconds", "How long the present device call has run; 0: none runs", engine.busy_seconds)
        observe("ready", "1 when requests are accepted", lambda: self.refusal() is None)
