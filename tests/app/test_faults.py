"""Clients that leave, failures of ours, times when nothing is served, and deadlines: 499 to 504."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from app.settings import Settings
from models.base import ServedModel
from models.fake.runner import Fault
from tests.app.support import (
    BLUE,
    GREEN,
    PNG,
    RED,
    TASKS,
    Connection,
    b64,
    entered,
    kind,
    lab,
    run,
    serving,
    until,
    until_ready,
    waiting,
)

# --- 499: clients that leave ---


def test_client_gone_while_queued() -> None:
    async def test() -> None:
        async with lab() as there:
            with there.heads.held() as hold:
                first = there.begin("/caption")
                await entered(hold)
                leaving = Connection(there.app, "/vqa", {"content-type": "application/json"})
                leaving.send(httpx.Request("POST", "/", json={"image": b64(GREEN), "question": "gone?"}).content)
                await waiting(there.service, 1)
                leaving.leave()
                await leaving.task
                assert there.service.engine.queue_items == 0
            assert (await first).status_code == 200
            assert leaving.sent == []
            payloads = [str(payload) for call in there.heads.calls for payload in call.payloads]
            assert not any("gone?" in payload for payload in payloads)
            assert there.count("requests_total", task="vqa", model="fake", code="499") == 1
            assert (there.admission.exchanges, there.admission.ledger.unfinished) == (set(), {})

    run(test)


def test_client_gone_before_its_body_is_complete() -> None:
    async def test() -> None:
        async with lab() as there:
            connection = Connection(there.app, "/caption", PNG | {"content-length": "1000"})
            connection.send(b"abc", more=True)
            connection.leave()
            await connection.task
            assert connection.sent == []
            assert there.count("requests_total", task="caption", model="fake", code="499") == 1
            assert there.admission.ledger.bytes == 0

    run(test)


def test_client_gone_while_others_wait_for_the_same_image() -> None:
    async def test() -> None:
        async with lab() as there:
            with there.tower.held() as hold:
                leader = Connection(there.app, "/caption", PNG)
                leader.send(BLUE)
                await entered(hold)
                joined = asyncio.create_task(there.client.post("/caption", content=BLUE, headers=PNG))

                async def has_joined() -> bool:
                    return there.count("feature_cache_total", result="joined") == 1

                await until(has_joined)
                leader.leave()
                await leader.task
            assert (await joined).json()["captions"][0]["text"] == "a blue picture"
            assert there.tower.sizes("encode") == [1]

    run(test)


# --- 500 ---


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.COUNT, Fault.NAN, Fault.OOM])
@pytest.mark.parametrize("path", TASKS)
def test_failed_batch(fault: Fault, path: str) -> None:
    async def test() -> None:
        async with lab() as there:
            there.heads.fail(fault)
            assert kind(await there.ask(path)) == (500, "batch-failed")
            there.heads.heal()
            assert (await there.ask(path)).status_code == 200
            there.tower.fail(fault)
            assert kind(await there.ask(path, GREEN)) == (500, "batch-failed")
            there.tower.heal()
            assert (await there.ask(path, GREEN)).status_code == 200
            assert there.count("requests_total", task=path[1:], model="fake", code="500") == 2

    run(test)


def test_a_bug_of_ours(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with lab() as there:
            monkeypatch.setattr(there.heads, "prepare", lambda _: 1 / 0)
            response = await there.ask("/caption")
            assert kind(response) == (500, "internal")
            assert "division" not in response.text
            assert any("ZeroDivisionError" in str(record.exc_info) for record in caplog.records)
            assert any(response.json()["request_id"] in str(vars(record).get("fields")) for record in caplog.records)

    run(test)


# --- 503 ---


def test_not_ready_while_loading_then_ready() -> None:
    async def test() -> None:
        loaded: Any = asyncio.Event()
        loop = asyncio.get_running_loop()

        def load(_: object) -> list[ServedModel]:
            asyncio.run_coroutine_threadsafe(loaded.wait(), loop).result()
            return []

        async with serving(load) as (client, _):
            assert (await client.get("/health/live")).status_code == 200
            ready = await client.get("/health/ready")
            assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
            assert kind(await client.post("/caption", content=RED, headers=PNG)) == (503, "not-ready")
            assert (await client.get("/models")).json()["models"] == []
            loaded.set()
            await until_ready(client)

    run(test)


def test_failed_to_load() -> None:
    async def test() -> None:
        def load(_: object) -> list[ServedModel]:
            raise RuntimeError("no such checkpoint")

        async with serving(load) as (client, app):

            async def failed() -> bool:
                return (await client.get("/health/live")).status_code == 503

            await until(failed)
            assert (await client.get("/health/ready")).status_code == 503
            assert str(app.state.service.failure) == "no such checkpoint"

    run(test)


def test_draining() -> None:
    async def test() -> None:
        async with lab() as there:
            with there.heads.held() as hold:
                accepted = there.begin("/caption")
                await entered(hold)
                there.admission.drain()
                refused = await there.ask("/caption")
                assert kind(refused) == (503, "draining")
                assert refused.headers["connection"] == "close"
                ready = await there.client.get("/health/ready")
                assert (ready.status_code, ready.headers["connection"]) == (503, "close")
                assert (await there.client.get("/health/live")).status_code == 200
            answer = await accepted
            assert (answer.status_code, answer.json()["model"]) == (200, "fake")
            assert answer.headers["connection"] == "close"

    run(test)


def test_device_lost() -> None:
    async def test() -> None:
        async with lab() as there:
            there.heads.fail(Fault.LOST)
            assert kind(await there.ask("/caption")) == (503, "device-lost")
            assert kind(await there.ask("/caption")) == (503, "device-lost")
            for path in ("/health/live", "/health/ready"):
                response = await there.client.get(path)
                assert (response.status_code, "device" in response.json()["reason"]) == (503, True)

    run(test)


# --- 504 ---


@pytest.mark.parametrize("by_header", [True, False])
def test_deadline(by_header: bool) -> None:
    async def test() -> None:
        headers = PNG | ({"X-Request-Timeout": "0.1"} if by_header else {"X-Request-Timeout": "1000"})
        async with lab(request_timeout_seconds=60 if by_header else 0.1) as there:
            with there.tower.held(), there.heads.held():
                response = await there.client.post("/caption", content=RED, headers=headers)
                assert kind(response) == (504, "deadline")
            assert (await there.ask("/match")).status_code in (200, 504)
            models = ("fake", "other")  # other: it was late before its body had been read
            assert sum(there.count("requests_total", task="caption", model=model, code="504") for model in models) == 1

    run(test)


def test_a_hanging_device_fails_liveness() -> None:
    async def test() -> None:
        async with lab() as there:
            with there.heads.held() as hold:
                task = there.begin("/caption")
                await entered(hold)
                assert (await there.client.get("/health/live")).status_code == 200
                there.service.settings = Settings(request_timeout_seconds=0.001, stuck_seconds=0.002)

                async def sick() -> bool:
                    return (await there.client.get("/health/live")).status_code == 503

                await until(sick)
            assert (await task).status_code == 200
            assert (await there.client.get("/health/live")).status_code == 200

    run(test)
