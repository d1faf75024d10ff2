"""Every accepted item is answered, with its own answer or one clear error: also when thousands fail and leave."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from dataclasses import dataclass
from itertools import count

import numpy as np
import pytest

from app.errors import BatchFailedError, DeadlineExceededError, EngineDownError
from models.fake.answers import scores
from models.fake.runner import Call, Fault
from models.inputs import CaptionInput, TextInput
from models.outputs import Generated, Output
from tests.app.engine.support import Lab, caption, lab, outcome, run


@dataclass(frozen=True, slots=True)
class Result:
    request: TextInput | CaptionInput
    bad: bool
    impatient: bool
    leaves: bool
    outcome: Output | BaseException


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # thousands of tracebacks otherwise


async def client(our: Lab, chance: random.Random, number: int) -> Result:
    """Submits at a random time; some requests are bad, some have a short deadline, some are cancelled."""
    bad, impatient, leaves = chance.random() < 0.02, chance.random() < 0.1, chance.random() < 0.2
    name = f"{'bad' if bad else 'good'} {number}"
    request = caption(name, chance.randint(3, 8)) if chance.random() < 0.5 else TextInput(name)
    await pause(chance.randint(0, 50))
    deadline = our.clock.now + (chance.choice([0, 1e-4, 1e-2]) if impatient else 1000)
    task = await our.submit(request, deadline)
    if leaves:
        await pause(chance.randint(0, 20))
        task.cancel()
    return Result(request, bad, impatient, leaves, await outcome(task))


async def pause(num_turns: int) -> None:
    for _ in range(num_turns):
        await asyncio.sleep(0)


def is_own(our: Lab, result: Result) -> bool:
    """Whether it is the answer to this request, or an error that it caused."""
    match result.outcome:
        case BatchFailedError():
            return result.bad
        case DeadlineExceededError():
            return result.impatient
        case asyncio.CancelledError():
            return result.leaves
        case BaseException():
            return False
        case Generated(sequences):
            assert isinstance(result.request, CaptionInput)
            return not result.bad and len(sequences[0].text.split()) == result.request.settings.min_new_tokens
        case answer:
            expected = scores(our.runner.prepare(result.request), our.runner.capabilities)
            return not result.bad and np.array_equal(np.asarray(answer), expected)


def is_bad(call: Call) -> bool:
    return any("bad" in str(payload) for payload in call.payloads)


@pytest.mark.parametrize(("seed", "fault"), [(1, Fault.ERROR), (2, Fault.COUNT), (3, Fault.NAN)])
def test_thousands_that_fail_and_leave_at_random_are_all_answered(seed: int, fault: Fault) -> None:
    chance = random.Random(seed)

    async def test() -> None:
        async with lab() as our:
            our.runner.fail(fault, is_bad)
            results = await asyncio.gather(*[client(our, chance, number) for number in range(3500)])
            assert [result for result in results if not is_own(our, result)] == []
            assert sum(not isinstance(result.outcome, BaseException) for result in results) > len(results) / 2
            assert our.engine.alive
            assert our.engine.queue_items == 0
            gc.collect()  # exceptions that were never retrieved are reported now, and fail the test

    run(test)


def test_thousands_are_told_when_the_device_is_lost_under_them() -> None:
    chance, calls = random.Random(4), count()

    async def test() -> None:
        async with lab() as our:
            our.runner.fail(Fault.LOST, lambda _: next(calls) == 20)
            results = await asyncio.gather(*[client(our, chance, number) for number in range(3000)])
            told = [result for result in results if isinstance(result.outcome, EngineDownError)]
            assert len(told) > 100
            others = [
                result for result in results if not result.bad and not isinstance(result.outcome, EngineDownError)
            ]
            assert [result for result in others if not is_own(our, result)] == []
            assert our.engine.queue_items == 0

    run(test)
