"""Prometheus metrics. Labels are bounded: unknown names from clients become `other`."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

STAGES = ("fetch", "decode", "preprocess", "queue", "encode", "score", "generate", "localize", "draw")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """One registry and its metrics, so that two services in one process (tests) do not share counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, CPU seconds, open files, start time; Linux only
        self.requests = self._counter("requests", "Requests answered", "task", "model", "code")
        self.request_seconds = self._histogram("request_seconds", "Seconds from first byte to answer", SECONDS, "task")
        stages = self._histogram("stage_seconds", "Seconds a work item spent in a stage", SECONDS, "stage")
        self.stage_seconds = {stage: stages.labels(stage) for stage in STAGES}
        self.batch_size = self._histogram(
            "batch_size", "Items per device call; a step counts its rows", SIZES, "unit", "op"
        )
        self.inflight_requests = self._gauge("inflight_requests", "Requests admitted and not yet answered")
        self.rejected = self._counter("rejected", "Requests refused before any work", "reason")
        self.readers_cut_off = self._counter("readers_cut_off", "Clients that did not read their answer")
        self.image_fetch_seconds = self._histogram("image_fetch_seconds", "Seconds to fetch an image by URL", SECONDS)
        self.image_fetches = self._counter("image_fetches", "Images by URL that were asked for", "result")
        self.feature_cache = self._counter("feature_cache", "Images looked up by digest", "result")
        self.feature_cache_returned = self._counter(
            "feature_cache_returned", "Misses of images that had been kept, and dropped for others"
        )
        self.feature_cache_kept = self._counter(
            "feature_cache_kept", "Looked up: what heads made of an image, such as keys and values", "result"
        )
        self.generated_tokens = self._counter("generated_tokens", "Tokens generated, stop token included", "model")
        self.generated_texts = self._counter(
            "generated_texts", "By kind: plain; empty, echo and repetition tell of damaged weights", "model", "kind"
        )
        self.decoders_killed = self._counter(
            "decoders_killed", "Decoder processes that were killed and replaced", "reason"
        )
        self.decoders_crashed = self._counter("decoders_crashed", "Decoder processes that ended by themselves")
        self.batch_failures = self._counter("batch_failures", "Device calls that failed", "unit", "op", "kind")
        self.model_info = self._gauge(
            "model_info",
            "1 for each checkpoint of a served model",
            "model",
            "family",
            "checkpoint",
            "revision",
            "dtype",
            "device",
        )

    def observe(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """A gauge whose value is read at each scrape."""
        self._gauge(name, help_text).set_function(read)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"blip_{name}", help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(f"blip_{name}", help_text, labels, registry=self.registry)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"blip_{name}", help_text, labels, registry=self.registry, buckets=buckets)
