"""Spans: one for the request, in the caller's trace, and in it one for each stage of its work."""

from __future__ import annotations

import sys
import threading

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app import main, server
from app.http.tracing import Tracing
from app.settings import Settings
from tests.app.support import RED, lab, run

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(main, "Tracing", lambda: Tracing(SimpleSpanProcessor(exporter)))
    return exporter


def named(spans: tuple[ReadableSpan, ...], name: str) -> list[ReadableSpan]:
    return [span for span in spans if span.name == name]


def test_a_request_and_its_stages(exporter: InMemorySpanExporter) -> None:
    async def ask() -> None:
        async with lab(tracing=True) as our:
            headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "x-request-id": "mine"}
            files, data = {"image": ("red.png", RED)}, {"question": ["what is it?", "what color?"]}
            assert (await our.client.post("/vqa", files=files, data=data, headers=headers)).status_code == 200
            await our.client.get("/models")

    run(ask)
    spans = exporter.get_finished_spans()
    (request,) = named(spans, "POST /vqa")
    assert request.parent is not None
    assert (request.parent.span_id, request.context.trace_id) == (int(CALLER, 16), int(TRACE, 16))
    attributes = dict(request.attributes or {})
    assert (attributes["http.response.status_code"], attributes["blip.request_id"]) == (200, "mine")
    stages = [span for span in spans if span is not request]
    assert sorted(span.name for span in stages) == [
        *("decode", "encode", "generate", "generate", "preprocess", "queue", "queue", "queue"),
    ]
    for stage in stages:
        assert stage.parent is not None
        assert stage.parent.span_id == request.context.span_id
        assert (request.start_time or 0) <= (stage.start_time or 0) <= (stage.end_time or 0) <= (request.end_time or 0)
    (encode,), (first, *_) = named(spans, "encode"), named(spans, "generate")
    assert (encode.end_time or 0) <= (first.start_time or 0)
    assert "what color" not in str([span.to_json() for span in spans])


def test_a_failure_is_marked(exporter: InMemorySpanExporter) -> None:
    async def ask() -> None:
        async with lab(tracing=True) as our:
            our.admission.drain()
            await our.client.post("/caption", files={"image": ("red.png", RED)})

    run(ask)
    (request,) = exporter.get_finished_spans()
    assert not request.status.is_ok


def test_without_the_extra_the_start_ends_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setattr(server, "configure_logging", lambda _: None)
    assert server.serve(Settings(tracing=True), []) == 1
    assert capsys.readouterr().err == ("blip-serve: BLIP_TRACING needs OpenTelemetry: pip install 'blip-serve[otel]'\n")


def test_a_span_that_cannot_be_made_is_no_requests_concern(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(Tracing, "_report", fail)

    async def ask() -> None:
        async with lab(tracing=True) as our:
            assert (await our.client.post("/caption", files={"image": ("red.png", RED)})).status_code == 200

    run(ask)
    assert "a span is lost: ValueError('broken')" in caplog.text


def test_a_collector_that_does_not_answer_is_not_waited_for() -> None:
    release = threading.Event()

    class Silent(SimpleSpanProcessor):
        def shutdown(self) -> None:
            release.wait()

    Tracing(Silent(InMemorySpanExporter())).close(seconds=0.01)
    release.set()
