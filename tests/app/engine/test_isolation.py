"""One bad item fails alone: a failed batch is split and tried again, down to single items, and not for ever."""

from __future__ import annotations

import asyncio
import logging

import pytest

from app.errors import BatchFailedError
from models.fake.runner import Fault
from models.inputs import Input, TextInput
from models.outputs import Generated
from tests.app.engine.support import Lab, caption, entered, has, lab, outcome, run

KINDS = [Fault.ERROR, Fault.OOM, Fault.COUNT, Fault.NAN]


def failed(outcomes: list[object]) -> list[bool]:
    return [isinstance(result, BatchFailedError) for result in outcomes]


async def run_together(our: Lab, *requests: Input) -> list[object]:
    """Their outcomes, as one batch."""
    with our.runner.held() as hold:
        tasks = await our.submit_together(hold, *requests)
    return [await outcome(task) for task in tasks]


@pytest.mark.parametrize("fault", KINDS)
def test_bad_item_fails_alone(fault: Fault) -> None:
    async def test() -> None:
        async with lab() as our:
            our.runner.fail(fault, has("bad"))
            requests = [TextInput("bad" if number == 5 else str(number)) for number in range(8)]
            assert failed(await run_together(our, *requests)) == [number == 5 for number in range(8)]
            assert our.runner.sizes("score") == [8, 4, 4, 2, 1, 1, 2]
            assert our.failures(fault) == 4

    run(test)


@pytest.mark.parametrize("method", ["generate", "step"])
@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.OOM])
def test_bad_item_of_a_generation_fails_alone(fault: Fault, method: str) -> None:
    async def test() -> None:
        async with lab() as our:
            our.runner.fail(fault, has("bad", method))
            requests = [caption("bad" if number == 2 else str(number)) for number in range(4)]
            assert failed(await run_together(our, *requests)) == [number == 2 for number in range(4)]
            assert our.failures(fault, "generate") == 3

    run(test)


@pytest.mark.parametrize("fault", [Fault.COUNT, Fault.NAN])
def test_bad_results_of_a_generation_fail_alone(fault: Fault) -> None:
    async def test() -> None:
        async with lab() as our:
            our.runner.fail(fault, has("bad", "step"))
            assert failed(await run_together(our, caption("a"), caption("bad"), caption("b"))) == [False, True, False]
            assert our.failures(fault, "generate") == 3

    run(test)


def test_out_of_memory_halves_the_batch() -> None:
    async def test() -> None:
        async with lab() as our:
            our.runner.fail(Fault.OOM, lambda call: len(call.items) > 2)
            outcomes = await run_together(our, *[TextInput(str(number)) for number in range(8)])
            assert failed(outcomes) == [False] * 8
            assert our.runner.sizes("score") == [8, 4, 2, 2, 4, 2, 2]
            assert our.failures("oom") == 3

    run(test)


def test_parts_of_a_generation_that_ran_out_of_memory_run_one_after_the_other() -> None:
    """Together they would need the same memory again."""

    async def test() -> None:
        async with lab() as our:
            our.runner.fail(Fault.OOM, lambda call: len(call.items) > 2)
            outcomes = await run_together(our, *[caption(str(number)) for number in range(8)])
            assert failed(outcomes) == [False] * 8
            calls = "".join(f"{call.method[0]}{len(call.items)}" for call in our.runner.calls)
            pair = "g2" + 4 * "s2"
            assert calls == "g8" + "g4" + pair + pair + "g4" + pair + pair

    run(test)


def test_bad_newcomer_does_not_take_the_running_rows_with_it() -> None:
    async def test() -> None:
        async with lab() as our:
            our.runner.fail(Fault.ERROR, has("bad"))
            with our.runner.held() as hold:
                first = await our.submit(caption("first"))
                await entered(hold)
                tasks = [first, await our.submit(caption("bad")), await our.submit(caption("good"))]
            assert failed([await outcome(task) for task in tasks]) == [False, True, False]
            assert our.runner.sizes("admit") == [2]
            assert not any(has("first", "generate")(call) and has("bad")(call) for call in our.runner.calls)

    run(test)


def test_newcomer_for_whom_there_is_no_room_runs_alone() -> None:
    async def test() -> None:
        async with lab() as our:
            our.runner.fail(Fault.OOM, lambda call: call.method == "admit")
            with our.runner.held() as hold:
                first = await our.submit(caption("first"))
                await entered(hold)
                second = await our.submit(caption("second"))
            assert isinstance(await first, Generated)
            assert isinstance(await second, Generated)

    run(test)


def test_failing_drop_restarts_the_others() -> None:
    async def test() -> None:
        async with lab() as our:
            our.runner.fail(Fault.ERROR, lambda call: call.method == "drop")
            with our.runner.held() as hold:
                stays, gone = await our.submit_together(hold, caption("stays"), caption("gone"))
                await entered(hold)
                gone.cancel()
                await asyncio.wait([gone])
            assert isinstance(await stays, Generated)

    run(test)


def test_device_that_fails_always_is_not_tried_for_ever() -> None:
    async def test() -> None:
        async with lab() as our:
            our.runner.fail(Fault.ERROR)
            outcomes = await run_together(our, *[TextInput(str(number)) for number in range(8)])
            assert failed(outcomes) == [True] * 8
            assert len(our.runner.calls) == 15
            our.runner.heal()
            assert failed(await run_together(our, TextInput("next"))) == [False]

    run(test)


def test_abandoned_item_of_a_failed_batch_is_not_tried_again() -> None:
    async def test() -> None:
        async with lab() as our:
            our.runner.fail(Fault.ERROR, lambda call: len(call.items) > 1)
            with our.runner.held() as hold:
                stays, gone = await our.submit_together(hold, TextInput("stays"), TextInput("gone"))
                await entered(hold)
                gone.cancel()
                await asyncio.wait([gone])
            assert await stays is not None
            assert our.runner.sizes("score") == [2, 1]

    run(test)


def test_failure_is_logged_without_what_was_asked(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with lab() as our:
            our.runner.fail(Fault.OOM)
            await run_together(our, TextInput("a secret"))

    with caplog.at_level(logging.ERROR):
        run(test)
    assert "fake: a batch of 1 failed to score (oom)" in caplog.text
    assert "OutOfMemoryError" in caplog.text
    assert "secret" not in caplog.text
