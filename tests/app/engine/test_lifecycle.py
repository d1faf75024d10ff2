"""Health and shutdown: nobody is left waiting when the device is lost, hangs, or the service stops."""

from __future__ import annotations

import asyncio
import threading

import pytest

from app.engine.engine import Engine, StageTimes
from app.errors import EngineDownError
from app.metrics import Metrics
from models.base import Item
from models.fake.runner import Call, FakeRunner, Fault, Hold
from models.inputs import TextInput
from tests.app.engine.support import caption, entered, lab, outcome, run


def test_health_of_an_idle_engine() -> None:
    async def test() -> None:
        async with lab() as our:
            engine = our.engine
            assert engine.alive
            assert (engine.busy_seconds(), engine.queue_items, engine.queue_oldest_seconds()) == (0, 0, 0)
        assert not engine.alive

    run(test)


def test_hanging_device_call_and_the_queue_behind_it_are_seen() -> None:
    async def test() -> None:
        async with lab() as our:
            with our.runner.held() as hold:
                tasks = [await our.submit(TextInput("first"))]
                await entered(hold)
                tasks.append(await our.submit(TextInput("second")))
                our.clock.now += 121
                assert our.engine.busy_seconds() == 121
                assert our.engine.queue_items == 1
                assert our.engine.queue_oldest_seconds() == 121
            await asyncio.gather(*tasks)
            assert our.engine.queue_oldest_seconds() == 0
            await our.engine.stop()
            assert our.engine.busy_seconds() == 0

    run(test)


@pytest.mark.parametrize("method", ["score", "generate", "admit", "step"])
def test_lost_device_is_told_to_all(method: str) -> None:
    async def test() -> None:
        async with lab() as our:
            our.runner.fail(Fault.LOST, lambda call: call.method == method)
            with our.runner.held() as hold:
                tasks = [await our.submit(caption("runs"))]
                await entered(hold)
                requests = [TextInput("waits")] if method == "score" else [caption("joins"), caption("x", 9)]
                tasks += [await our.submit(request) for request in requests]
            assert [type(await outcome(task)) for task in tasks] == [EngineDownError] * len(tasks)
            assert not our.engine.alive
            assert isinstance(await outcome(await our.submit(TextInput("later"))), EngineDownError)

    run(test)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_whatever_ends_the_device_thread_is_told(error: type[BaseException]) -> None:
    def end(_: Call) -> bool:
        raise error

    async def test() -> None:
        async with lab() as our:
            our.runner.fail(Fault.ERROR, end)
            assert isinstance(await outcome(await our.submit(TextInput("any"))), EngineDownError)
            assert not our.engine.alive

    run(test)


def test_fault_of_the_engine_itself_leaves_nobody_waiting() -> None:
    async def test() -> None:
        async with lab() as our:
            our.metrics.batch_failures = None  # type: ignore[assignment]
            our.runner.fail(Fault.ERROR, lambda call: len(call.items) > 1)
            with our.runner.held() as hold:
                tasks = await our.submit_together(hold, TextInput("a"), TextInput("b"))
            assert [type(await outcome(task)) for task in tasks] == [EngineDownError] * 2

    run(test)


def test_stop_answers_what_is_left_and_what_comes_later() -> None:
    async def test() -> None:
        async with lab() as our:
            with our.runner.held() as hold:
                tasks = [await our.submit(caption("runs"))]
                await entered(hold)
                tasks.append(await our.submit(TextInput("waits")))
                await our.engine.stop(join_seconds=0)
                assert [type(await outcome(task)) for task in tasks] == [EngineDownError] * 2
                assert isinstance(await outcome(await our.submit(TextInput("later"))), EngineDownError)
            await our.engine.stop()
            assert not our.runner.sizes("score", "step")

    run(test)


def test_engine_that_did_not_start_says_so_and_stops() -> None:
    async def test() -> None:
        engine = Engine(metrics := Metrics(), max_batch_size=1, max_cache_bytes=1)
        runner = FakeRunner()
        item = runner.prepare(TextInput("early"))
        submitted = engine.submit(runner, item, deadline=None, times=StageTimes(metrics))
        assert isinstance(await outcome(submitted), EngineDownError)
        await engine.stop()
        assert not engine.alive

    run(test)


def test_item_that_cannot_be_batched_harms_only_its_sender() -> None:
    async def test() -> None:
        async with lab() as our:
            item = our.item(TextInput("any"))
            unhashable = Item(item.op, [], item.payload)  # type: ignore[arg-type]
            times = StageTimes(our.metrics)
            submitted = our.engine.submit(our.runner, unhashable, deadline=None, times=times)
            assert isinstance(await outcome(submitted), TypeError)
            assert await (await our.submit(TextInput("next"))) is not None

    run(test)


@pytest.mark.parametrize("fault", [None, Fault.ERROR, Fault.LOST])
def test_event_loop_that_closed_first_ends_the_device_thread_in_silence(
    fault: Fault | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[object] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    engine, runner = Engine(Metrics(), max_batch_size=4, max_cache_bytes=1), FakeRunner()
    if fault is not None:
        runner.fail(fault)

    async def leave(hold: Hold) -> None:
        engine.start()
        times = StageTimes(Metrics())
        submitted = engine.submit(runner, runner.prepare(TextInput("any")), deadline=1e9, times=times)
        task = asyncio.create_task(submitted)
        await entered(hold)
        assert not task.done()

    with runner.held() as hold:
        run(lambda: leave(hold))
    engine._device.join(30)
    assert not engine.alive
    assert errors == []
