"""The service over real decoders: requests that end, pictures that crash, and all decoders held."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from app.decoding.pool import Decoders, Patience
from app.metrics import Metrics
from app.settings import Settings
from models.fake.runner import fake_models
from tests.app.decoding import crafted
from tests.app.support import PNG, RED, Connection, InlineDecoder, kind, run, serving, until, until_ready

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals")


class SickDecoder(InlineDecoder):
    def sickness(self) -> str | None:
        return "All decoders are held."


def test_not_ready_while_all_decoders_are_held() -> None:
    async def test() -> None:
        async with serving(lambda _: fake_models(), lambda *_: SickDecoder()) as (client, app):

            async def loaded() -> bool:
                return bool(app.state.service.models)

            await until(loaded)
            ready = await client.get("/health/ready")
            assert (ready.status_code, ready.json()["reason"]) == (503, "All decoders are held.")
            refused = await client.post("/caption", content=RED, headers=PNG)
            assert kind(refused) == (503, "decoders-busy")
            assert "\nblip_ready 0.0\n" in (await client.get("/metrics")).text
            assert (await client.get("/health/live")).status_code == 200

    run(test)


def patient(settings: Settings, metrics: Metrics) -> Decoders:
    return Decoders(settings.threads, metrics, Patience(acknowledge_seconds=10.0, grace_seconds=0.01))


@asynccontextmanager
async def served() -> AsyncIterator[tuple[httpx.AsyncClient, Any, Decoders]]:
    async with serving(lambda _: fake_models(), patient) as (client, app):
        await until_ready(client)
        decoders: Decoders = app.state.service.decoder

        async def free() -> bool:
            return decoders.num_free == 2

        await until(free)
        yield client, app, decoders


def killed(app: Any, reason: str) -> float:
    registry = app.state.service.metrics.registry
    return registry.get_sample_value("blip_decoders_killed_total", {"reason": reason}) or 0.0


def test_a_decode_ends_with_its_request() -> None:
    """At its deadline, and when its client leaves."""

    async def test() -> None:
        async with served() as (client, app, decoders):
            for number, leave in enumerate((False, True), 1):
                for pid in decoders.pids:
                    os.kill(pid, signal.SIGSTOP)
                timeout = {} if leave else {"x-request-timeout": "0.1"}
                connection = Connection(app, "/caption", PNG | timeout | {"content-length": str(len(RED))})
                connection.send(RED)

                async def given() -> bool:
                    return bool(decoders.busy_pids)

                await until(given)
                if leave:
                    connection.leave()
                await connection.task
                assert connection.status == (None if leave else 504)

                async def ended(number: int = number) -> bool:
                    return killed(app, "cancelled") == number

                await until(ended)
                for pid in decoders.pids:
                    os.kill(pid, signal.SIGCONT)
            assert app.state.admission.ledger.bytes == 0
            assert (await client.post("/caption", content=RED, headers=PNG)).status_code == 200

    run(test)


def test_a_picture_that_costs_too_much_is_refused_and_the_next_one_is_answered() -> None:
    async def test() -> None:
        async with served() as (client, app, _):
            refused = [
                crafted.jpeg_scans(101),
                crafted.gif(crafted.gif_comment(1001)),
                crafted.bmp_runs(7000, 7000, b"\1\1\0\0" * 7000),
            ]
            answers = await asyncio.gather(
                *(client.post("/caption", content=data, headers={"content-type": "image/x"}) for data in refused)
            )
            assert [kind(answer) for answer in answers] == [(422, "bad-image")] * 3
            assert (await client.post("/caption", content=RED, headers=PNG)).status_code == 200
            assert app.state.admission.ledger.bytes == 0

    run(test)
