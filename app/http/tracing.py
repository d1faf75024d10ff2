"""OpenTelemetry: one span a request, and one for each stage of its work items, made when it has been answered.

Needs the extra `otel`. Where spans go is the SDK's to read, from its own variables (OTEL_EXPORTER_OTLP_ENDPOINT and so
on). They hold no content: names, times, and the status.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from app.http.exchange import Exchange

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

logger = logging.getLogger("blip.tracing")


class Tracing:
    """Raises RuntimeError, with what to install, where OpenTelemetry is missing."""

    def __init__(self, processor: SpanProcessor | None = None) -> None:
        try:
            from opentelemetry import propagate, trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise RuntimeError("BLIP_TRACING needs OpenTelemetry: pip install 'blip-serve[otel]'") from error
        except Exception as error:  # a variable of OpenTelemetry's own that it cannot use
            raise RuntimeError(f"BLIP_TRACING: {error}") from error
        self._extract, self._set_span = propagate.extract, trace.set_span_in_context
        self._kind, self._failed = trace.SpanKind.SERVER, trace.Status(trace.StatusCode.ERROR)
        self._provider = TracerProvider(
            # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes before.
            resource=Resource({SERVICE_NAME: "blip-serve"}).merge(Resource.create()),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor or BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("blip-serve")

    def report(self, exchange: Exchange) -> None:
        """The request, in the trace that its `traceparent` names. What goes wrong here is no request's concern."""
        try:
            self._report(exchange)
        except Exception as error:
            logger.warning("a span is lost: %r", error)

    def _report(self, exchange: Exchange) -> None:
        to_epoch = time.time() - time.monotonic()
        carrier = {name.decode("latin-1"): value for name, value in exchange.headers.items()}
        route = exchange.path
        request = self._tracer.start_span(
            f"POST {route}",
            context=self._extract(carrier),
            kind=self._kind,
            start_time=_nanoseconds(exchange.started_at + to_epoch),
            attributes={
                "http.request.method": "POST",
                "http.route": route,
                "http.response.status_code": exchange.status,
                "blip.model": exchange.model,
                "blip.request_id": exchange.request_id,
            },
        )
        inside = self._set_span(request)
        for stage, began, ended in exchange.times.spans:
            span = self._tracer.start_span(stage, context=inside, start_time=_nanoseconds(began + to_epoch))
            span.end(_nanoseconds(ended + to_epoch))
        if exchange.status >= 500:
            request.set_status(self._failed)
        request.end()

    def close(self, seconds: float) -> None:
        """Send what has not been sent yet; a collector that does not answer is not waited for longer."""
        closing = threading.Thread(target=self._provider.shutdown, name="tracing", daemon=True)
        closing.start()
        closing.join(seconds)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
