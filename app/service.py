"""The parts that one process serves with, and the state that it is in."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum

from app.decoding.pool import decoder_processes
from app.decoding.protocol import ImageDecoder
from app.engine.engine import Engine
from app.engine.features import FeatureCache
from app.engine.kept import KeptCache
from app.engine.texts import TextCache
from app.metrics import Metrics
from app.settings import Settings
from app.urls.fetch import ImageFetcher
from models.base import ServedModel, Task

MakeDecoder = Callable[[Settings, Metrics], ImageDecoder]
KEPT_SHARE = 0.5  # of the feature cache, for keys and values
TEXT_CACHE_BYTES = 16 * 2**20  # some ten thousand labels


class Phase(StrEnum):
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed to load"


class Service:
    def __init__(self, settings: Settings, make_decoder: MakeDecoder = decoder_processes) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.engine = Engine(
            self.metrics, max_batch_size=settings.max_batch_size, max_cache_bytes=settings.generation_cache_bytes
        )
        self.cache = FeatureCache(settings.feature_cache_bytes, self.metrics)
        self.kept = KeptCache(0, self.metrics)
        self.texts = TextCache(TEXT_CACHE_BYTES)
        self.decoder = make_decoder(settings, self.metrics)
        self.created_at = int(time.time())
        self.fetcher = ImageFetcher(settings, self.metrics)
        self.cpu = ThreadPoolExecutor(settings.threads, thread_name_prefix="cpu")
        self.models: dict[str, ServedModel] = {}
        self.default_models: dict[Task, str] = {}  # who answers when none is named
        self.phase = Phase.LOADING
        self.failure: Exception | None = None  # why loading failed
        self._observe()

    def serve(self, models: list[ServedModel]) -> None:
        """Ready: the models are loaded, checked and warm."""
        every = {id(one.heads): one.heads for model in models for one in model.checkpoints.values()}.values()
        if any(heads.capabilities.keeps for heads in every):
            self.kept.max_bytes = int(KEPT_SHARE * self.settings.feature_cache_bytes)
            self.cache.max_bytes -= self.kept.max_bytes
        for heads in every:
            heads.keep_in(self.kept)
        self.models = {model.name: model for model in models}
        self.default_models = {task: model.name for model in reversed(models) for task in model.checkpoints}
        for model in models:
            for one in model.checkpoints.values():
                revision = one.revision or ""
                labels = model.name, model.family, one.name, revision, one.dtype, one.device
                self.metrics.model_info.labels(*labels).set(1)
        if self.phase is Phase.LOADING:
            self.phase = Phase.READY

    async def start(self) -> None:
        self.engine.start()
        await self.decoder.start()

    async def close(self) -> None:
        await self.cache.close()
        await self.decoder.close()
        await self.engine.stop(join_seconds=self.settings.farewell_seconds / 3)  # a device call may hang
        self.cpu.shutdown(wait=False, cancel_futures=True)

    def sickness(self) -> str | None:
        """Why the process should be restarted; None: it is well."""
        if self.phase is Phase.FAILED:
            return "the models failed to load"
        if not self.engine.alive:
            return "the device thread is dead"
        if self.engine.busy_seconds() > self.settings.stuck_seconds:
            return "the device does not answer"
        return None

    def _observe(self) -> None:
        observe, engine = self.metrics.observe, self.engine
        observe("queue_items", "Work items that wait", lambda: engine.queue_items)
        observe("queue_oldest_seconds", "How long the oldest work item has waited", engine.queue_oldest_seconds)
        observe(
            "feature_cache_bytes",
            "Bytes of image features that are kept, and of what heads made of them",
            lambda: self.cache.bytes + self.kept.bytes,
        )
        observe("feature_cache_kept_bytes", "Of these, what heads made of them", lambda: self.kept.bytes)
        observe(
            "generation_cache_bytes",
            "Bytes that the key-value caches of running generations may take",
            lambda: engine.generation_cache_bytes,
        )
        observe("device_call_seconds", "How long the present device call has run; 0: none runs", engine.busy_seconds)
