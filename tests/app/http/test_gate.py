"""The door: identity, keys, routes, bodies and admission: 401 to 429."""

from __future__ import annotations

import gc
import logging
import re
import weakref
from typing import Any

import pytest

from app.http.exchange import Exchange
from models.base import ServedModel
from tests.app.conftest import Shared
from tests.app.support import (
    PNG,
    RED,
    ROUTES,
    TASKS,
    Connection,
    b64,
    entered,
    kind,
    lab,
    run,
    until,
    waiting,
)

# --- every answer ---


@pytest.mark.parametrize("given", ["abc", "A.b_c-9", "x" * 128])
def test_request_id_of_the_client(shared: Shared, given: str) -> None:
    assert shared.get("/models", headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\tb", "<script>"])
def test_request_id_that_is_not_sane(shared: Shared, given: str) -> None:
    response = shared.get("/models", headers={"X-Request-ID": given})
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


def test_server_timing(shared: Shared) -> None:
    new = shared.ask("/caption", b"".join((RED, b"new"))).headers["server-timing"]
    names = [re.fullmatch(r"(\w+);dur=\d+\.\d\d", part) for part in new.split(", ")]
    assert [name and name[1] for name in names] == ["decode", "preprocess", "queue", "encode", "generate", "total"]
    assert "decode" not in shared.ask("/caption", b"".join((RED, b"new"))).headers["server-timing"]
    assert "score" in shared.ask("/match").headers["server-timing"]
    assert "total" in shared.get("/nothing").headers["server-timing"]


def test_log_has_one_line_and_no_content(shared: Shared, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        shared.ask("/vqa", question="a secret?")
    [record] = [record for record in caplog.records if record.name == "blip.access"]
    fields = vars(record)["fields"]
    assert (fields["task"], fields["model"], fields["status"]) == ("vqa", "fake", 200)
    assert {"request_id", "total_ms", "queue_ms", "generate_ms"} <= fields.keys()
    assert "secret" not in caplog.text + str(fields)


# --- 401 ---


def test_keys() -> None:
    async def test() -> None:
        async with lab(api_keys="one, zwei\xdf") as there:
            client = there.client
            for path in (*TASKS, "/models", "/metrics", "/docs/", "/docs2", "/openapi.json/", "/nothing"):
                for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Basic one"}, {"X-API-Key": "on"}):
                    response = await client.request("POST" if path in TASKS else "GET", path, headers=headers)
                    assert kind(response) == (401, "unauthorized")
                    assert response.headers["www-authenticate"] == "Bearer"
                    assert "one" not in response.text
            for key in ({"X-API-Key": "one"}, {"Authorization": "Bearer one"}, {"Authorization": "bearer one"}):
                assert (await client.get("/models", headers=key)).status_code == 200
            for path in ("/health/live", "/health/ready", "/docs", "/openapi.json"):
                assert (await client.get(path)).status_code == 200
            assert there.count("rejected_total", reason="unauthorized") > 0

    run(test)


# --- 404, 405, 422 ---


def test_unknown_route(shared: Shared) -> None:
    for method in ("GET", "POST"):
        assert kind(shared.request(method, "/nothing")) == (404, "unknown-route")


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("/vqa/", "/vqa"),
        ("//caption", "/caption"),
        ("/Caption", "/caption"),
        ("/captions", "/caption"),
        ("/model", "/models"),
        ("/health/ready/", "/health/ready"),
        ("/healthz/live", "/health/live"),
        ("/docs/", "/docs"),
        ("/openapi", "/openapi.json"),
        ("/nothing", None),
        ("/" + "caption" * 5000, None),
        ("/caf%C3%A9%00", None),
    ],
)
def test_a_near_miss_is_told_the_right_path(shared: Shared, path: str, near: str | None) -> None:
    for method in ("GET", "POST"):
        response = shared.request(method, f"http://test{path}")
        assert kind(response) == (404, "unknown-route")
        assert response.json()["detail"].endswith(f"nearest one is {near}" if near else "/docs lists all")


@pytest.mark.parametrize("path", ROUTES)
def test_head_is_get_without_its_body(shared: Shared, path: str) -> None:
    get, head = shared.get(path), shared.request("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")
    varying = {"x-request-id", "server-timing"} | ({"content-length"} if path == "/metrics" else set())
    assert head.headers.keys() == get.headers.keys()
    assert all(head.headers[name] == get.headers[name] for name in head.headers.keys() - varying)


def test_head_of_what_takes_post(shared: Shared) -> None:
    response = shared.request("HEAD", "/caption")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", [*TASKS, *ROUTES[:2]])
def test_wrong_method(shared: Shared, path: str) -> None:
    response = shared.request("DELETE", path)
    assert kind(response) == (405, "method-not-allowed")
    assert response.headers["allow"] == ("POST" if path in TASKS else "GET, HEAD")


def test_model_without_the_task() -> None:
    async def test() -> None:
        async with lab() as there:
            model = there.service.models["fake"]
            checkpoints = {task: one for task, one in model.checkpoints.items() if task != "vqa"}
            other = ServedModel("other", "fake", checkpoints)
            there.service.serve([other, model])
            assert (await there.ask("/caption")).json()["model"] == "other"
            assert (await there.ask("/vqa")).json()["model"] == "fake"
            assert kind(await there.ask("/vqa", model="other")) == (422, "invalid-input")
            there.service.serve([other])
            assert kind(await there.ask("/vqa")) == (422, "invalid-input")

    run(test)


@pytest.mark.parametrize("timeout", ["soon", "nan", "0", "-1", "", "5e-324", "0.0009"])
def test_timeout_header_that_is_no_time(shared: Shared, timeout: str) -> None:
    response = shared.post("/caption", content=RED, headers=PNG | {"X-Request-Timeout": timeout})
    assert kind(response) == (422, "invalid-input")
    assert "X-Request-Timeout" in response.json()["detail"]


# --- 408, 413: bodies ---


def test_body_too_large_by_length() -> None:
    async def test() -> None:
        async with lab(max_body_bytes=1000) as there:
            response = await there.client.post("/caption", content=bytes(1001), headers=PNG)
            assert kind(response) == (413, "body-too-large")
            assert response.headers["connection"] == "close"
            assert (await there.client.post("/caption", content=RED, headers=PNG)).status_code == 200

    run(test)


def test_body_too_large_while_streaming() -> None:
    async def test() -> None:
        async with lab(max_body_bytes=1000) as there:
            connection = Connection(there.app, "/caption", PNG | {"transfer-encoding": "chunked"})
            connection.send(bytes(600), more=True)
            connection.send(bytes(600), more=True)
            connection.leave()
            await connection.task
            assert (connection.status, connection.problem["type"]) == (413, "/errors/body-too-large")
            assert connection.headers["connection"] == "close"
            assert there.admission.ledger.bytes == 0

    run(test)


def test_slow_body() -> None:
    async def test() -> None:
        async with lab(body_timeout_seconds=0.05) as there:
            connection = Connection(there.app, "/caption", PNG | {"content-length": "100"})
            connection.send(bytes(50), more=True)

            async def answered() -> bool:
                return connection.status is not None

            await until(answered)
            connection.leave()
            await connection.task
            assert (connection.status, connection.problem["type"]) == (408, "/errors/slow-body")
            assert connection.headers["connection"] == "close"
            assert there.count("rejected_total", reason="slow-body") == 1

    run(test)


def test_the_rest_of_an_unwanted_body_is_taken_before_the_end() -> None:
    async def test() -> None:
        async with lab(max_body_bytes=10) as there:
            connection = Connection(there.app, "/caption", PNG | {"content-length": "30"})

            async def answered() -> bool:
                return len(connection.sent) == 2

            await until(answered)
            assert connection.sent[1]["more_body"]  # all of the answer, but not the end of the connection
            connection.send(bytes(15), more=True)
            connection.send(bytes(15))
            await connection.task
            assert connection.sent[2:] == [{"type": "http.response.body", "body": b""}]

    run(test)


# --- 429: admission ---


def test_queue_full() -> None:
    async def test() -> None:
        async with lab(max_queue_items=2) as there:
            with there.heads.held() as hold:
                tasks = [there.begin("/caption")]
                await entered(hold)
                tasks += [there.begin("/caption", prompt="a"), there.begin("/caption", prompt="b")]
                await waiting(there.service, 2)
                connection = Connection(there.app, "/caption", PNG | {"content-length": "30"})
                connection.leave()
                await connection.task  # before its body is read
                assert (connection.status, connection.problem["type"]) == (429, "/errors/queue-full")
                assert kind(await there.ask("/caption")) == (429, "queue-full")
                for path in ROUTES[:2]:
                    assert (await there.client.get(path)).status_code == 200
            assert [(await task).status_code for task in tasks] == [200] * 3
            assert there.count("rejected_total", reason="queue-full") == 2

    run(test)


def test_an_admitted_request_may_be_larger_than_the_queue() -> None:
    async def test() -> None:
        async with lab(max_queue_items=1) as there:
            response = await there.ask("/vqa", question=[f"is it {number}?" for number in range(20)])
            assert len(response.json()["answers"]) == 20

    run(test)


def test_bytes_full() -> None:
    async def test() -> None:
        async with lab(max_body_bytes=1000, max_inflight_bytes=5000) as there:
            there.admission.ledger.add_bytes(4500)
            assert kind(await there.client.post("/caption", content=bytes(600), headers=PNG)) == (429, "bytes-full")
            connection = Connection(there.app, "/caption", PNG | {"transfer-encoding": "chunked"})
            connection.send(bytes(400), more=True)
            connection.send(bytes(400))
            await connection.task
            assert (connection.status, connection.problem["type"]) == (429, "/errors/bytes-full")
            assert there.admission.ledger.bytes == 4500

    run(test)


def test_who_only_promises_a_body_holds_nobody_up() -> None:
    async def test() -> None:
        async with lab(max_body_bytes=1000, max_inflight_bytes=1100, max_queue_items=2) as there:
            promises = [Connection(there.app, "/caption", PNG | {"content-length": "1000"}) for _ in range(9)]
            for connection in promises:
                connection.send(b"a", more=True)

            async def all_begun() -> bool:
                return there.admission.ledger.bytes == len(promises)

            await until(all_begun)
            response = await there.client.post("/caption", content=RED, headers=PNG)
            assert response.status_code == 200
            for connection in promises:
                connection.leave()
                await connection.task
            assert there.admission.ledger.bytes == 0

    run(test)


def test_bodies_and_pixels_are_counted_while_they_are_there() -> None:
    async def test() -> None:
        async with lab() as there:
            with there.tower.held() as hold:
                task = there.begin("/caption")
                await entered(hold)
                assert there.admission.ledger.bytes > len(b64(RED)) + 12 * 32 * 32
                assert there.count("inflight_requests") == 1
            await task
            assert (there.admission.ledger.bytes, there.count("inflight_requests")) == (0, 0)

    run(test)


# --- metrics ---


def test_a_refused_request_counts_for_the_model_that_it_was_for(shared: Shared) -> None:
    shared.ask("/caption", num_beams=99)
    shared.post("/vqa", content=b"{", headers={"Content-Type": "application/json"})
    text = shared.get("/metrics").text
    assert 'blip_requests_total{code="422",model="fake",task="caption"}' in text
    assert 'blip_requests_total{code="400",model="fake",task="vqa"}' in text


def test_labels_are_bounded(shared: Shared) -> None:
    shared.post("/nothing-at-all")
    shared.ask("/caption", model="never-heard-of")
    text = shared.get("/metrics").text
    assert 'task="other"' in text
    assert "nothing-at-all" not in text
    assert "never-heard-of" not in text
    assert 'blip_requests_total{code="404",model="other",task="caption"}' in text


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (RED, "image/png", 200),
        (RED[:40], "image/png", 422),
        (b"no picture", "image/png", 415),
        (b"{", "application/json", 400),
    ],
    ids=["200", "422", "415", "400"],
)
def test_a_body_is_gone_with_its_answer(
    content: bytes, kind: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when the collector of cycles comes by: it is counted no more."""
    exchanges: list[weakref.ref[Exchange]] = []

    class Noted(Exchange):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            exchanges.append(weakref.ref(self))

    async def test() -> None:
        async with lab() as there:
            monkeypatch.setattr("app.http.gate.Exchange", Noted)
            gc.collect()
            gc.disable()
            response = await there.client.post("/caption", content=content, headers={"content-type": kind})
            assert response.status_code == status

            async def gone() -> bool:  # once the device thread has let go of what it delivered
                return [exchange() for exchange in exchanges] == [None]

            await until(gone)

    try:
        run(test)
    finally:
        gc.enable()
