"""What the engine promises its callers: batches, answers, deadlines, cancellation, health, shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from app.engine.device import Outcome
from app.engine.engine import StageTimes
from app.errors import DeadlineExceededError
from models.fake.answers import scores
from models.fake.runner import ROW_BYTES, Fault
from models.inputs import TextInput
from models.outputs import Generated
from tests.app.engine.support import Lab, caption, entered, has, lab, outcome, run


def words(answer: object) -> int:
    assert isinstance(answer, Generated)
    return len(answer.sequences[0].text.split())


# --- batches ---


def test_what_waits_is_taken_together_when_the_device_is_free() -> None:
    async def test() -> None:
        async with lab(max_batch_size=4) as our:
            with our.runner.held() as hold:
                tasks = [await our.submit(TextInput("first"))]
                await entered(hold)
                tasks += [await our.submit(TextInput(str(number))) for number in range(6)]
                assert our.engine.queue_items == 6
            await asyncio.gather(*tasks)
            assert our.runner.sizes("score") == [1, 4, 2]
            assert our.count("batch_size_sum", unit="fake", op="score") == 7
            assert our.count("batch_size_count", unit="fake", op="score") == 3

    run(test)


def test_everybody_gets_their_own_answer() -> None:
    async def test() -> None:
        async with lab(max_batch_size=8) as our:
            requests = [TextInput(f"text {number}") for number in range(200)]
            answers = await asyncio.gather(*[await our.submit(request) for request in requests])
            for request, answer in zip(requests, answers, strict=True):
                expected = scores(our.runner.prepare(request), our.runner.capabilities)
                assert np.array_equal(np.asarray(answer), expected)
            assert max(our.runner.sizes("score")) <= 8

    run(test)


def test_one_item_submitted_twice_is_answered_twice() -> None:
    async def test() -> None:
        async with lab() as our:
            item, times = our.item(caption("a")), StageTimes(our.metrics)
            both = [our.engine.submit(our.runner, item, deadline=None, times=times) for _ in range(2)]
            first, second = await asyncio.gather(*both)
            assert first == second

    run(test)


async def lengths_of_two_that_come_later(our: Lab) -> list[int]:
    """Words of three captions, two of which are submitted during the first step of the first."""
    with our.runner.held() as hold:
        first = await our.submit(caption("first"))
        await entered(hold)  # generate
        hold.let_one_go()
        await entered(hold)  # its first step
        others = [await our.submit(caption(name)) for name in ("second", "third")]
    return [words(answer) for answer in await asyncio.gather(first, *others)]


def test_sequences_join_a_running_generation_and_leave_it_when_they_end() -> None:
    async def test() -> None:
        async with lab(max_batch_size=2) as our:
            assert await lengths_of_two_that_come_later(our) == [3, 3, 3]
            assert our.runner.sizes("generate", "admit") == [1, 2]
            assert our.runner.sizes("step") == [1, 3, 3, 3, 2]
            assert our.count("batch_size_count", unit="fake", op="generate") == 5

    run(test)


def test_a_sequence_joins_when_the_steps_have_not_enough_images() -> None:
    async def test() -> None:
        async with lab() as our:
            our.runner.capabilities = replace(our.runner.capabilities, enough_images=2)
            assert await lengths_of_two_that_come_later(our) == [3, 3, 3]
            assert our.runner.sizes("generate", "admit") == [1, 1, 1]
            assert our.runner.sizes("step") == [1, 2, 2, 2, 2, 1, 1, 1]

    run(test)


@pytest.mark.parametrize(("num_new_tokens", "joins"), [(1, True), (2, False)])
def test_a_sequence_waits_for_none_that_may_stay_longer(num_new_tokens: int, joins: bool) -> None:
    """By the tokens that those in generation have left."""

    async def test() -> None:
        async with lab() as our:
            our.runner.capabilities = replace(our.runner.capabilities, enough_images=1)
            items = [replace(our.item(caption("a")), num_new_tokens=number) for number in (3, num_new_tokens)]
            times, tasks = StageTimes(our.metrics), []
            with our.runner.held() as hold:
                for item in items:
                    task = asyncio.create_task(our.engine.submit(our.runner, item, deadline=None, times=times))
                    tasks.append(task)
                    await asyncio.sleep(0)
                    if len(tasks) == 1:
                        await entered(hold)  # generate
            await asyncio.gather(*tasks)  # asked after the first step: two tokens are left
            assert our.runner.sizes("generate", "admit") == [1, 1]
            assert max(our.runner.sizes("step")) == (2 if joins else 1)

    run(test)


def test_other_work_while_nothing_is_generated_is_not_made_up_for_later() -> None:
    async def test() -> None:
        async with lab() as our:
            with our.runner.held() as hold:
                score = await our.submit(TextInput("long"))
                await entered(hold)
                our.clock.now += 100
                hold.let_one_go()
                await outcome(score)
                answer = await our.submit(caption("a b c d"))
                await entered(hold)  # generate
                waiting = await our.submit(TextInput("short"))
                hold.let_one_go()
                await entered(hold)  # its first step: what a call is followed by
                our.runner.calls.clear()
                hold.let_one_go()
                await entered(hold)
                hold.release()
                await outcome(waiting)
                await outcome(answer)
            assert our.runner.calls[0].method == "score"

    run(test)


def test_rows_in_generation_are_seen_by_the_memory_that_they_may_take() -> None:
    async def test() -> None:
        async with lab() as our:
            with our.runner.held() as hold:
                tasks = [await our.submit(caption(name)) for name in ("first", "second")]
                await entered(hold)  # generate
                hold.let_one_go()
                await entered(hold)  # its first step
                assert our.engine.generation_cache_bytes > 0
                assert our.engine.generation_cache_bytes % ROW_BYTES == 0
            await asyncio.gather(*tasks)
            await (await our.submit(TextInput("next")))  # the turn that ended them is over
            assert our.engine.generation_cache_bytes == 0

    run(test)


def test_short_work_is_not_stuck_behind_long_generations() -> None:
    async def test() -> None:
        async with lab() as our:
            with our.runner.held() as hold:
                long = await our.submit(caption("long", num_words=50))
                await entered(hold)
                short = await our.submit(TextInput("short"))
                other = await our.submit(caption("other", num_words=1))
            await asyncio.gather(long, short, other)
            methods = [call.method for call in our.runner.calls]
            assert methods[:5] == ["generate", "step", "score", "step", "generate"]
            assert len(methods) == 3 + 51 + 4

    run(test)


def test_stages_are_timed() -> None:
    async def test() -> None:
        async with lab() as our:
            times = StageTimes(our.metrics)
            with our.runner.held() as hold:
                await our.submit(TextInput("first"))
                await entered(hold)
                item = our.item(TextInput("second"))
                task = asyncio.create_task(our.engine.submit(our.runner, item, deadline=None, times=times))
                await asyncio.sleep(0)
                our.clock.now += 3
                hold.let_one_go()
                await entered(hold)
                our.clock.now += 2
            await task
            assert times.seconds == {"queue": 3, "score": 2}

    run(test)


# --- abandoned work is not run ---


def test_cancelled_item_leaves_the_queue_unrun() -> None:
    async def test() -> None:
        async with lab() as our:
            with our.runner.held() as hold:
                first = await our.submit(TextInput("first"))
                await entered(hold)
                gone, stays = await our.submit(TextInput("gone")), await our.submit(TextInput("stays"))
                gone.cancel()
                await asyncio.wait([gone])
                assert our.engine.queue_items == 1
            await asyncio.gather(first, stays)
            assert not any(map(has("gone"), our.runner.calls))

    run(test)


def test_client_that_leaves_during_its_device_call_harms_nobody() -> None:
    async def test() -> None:
        async with lab() as our:
            with our.runner.held() as hold:
                gone = await our.submit(TextInput("gone"))
                await entered(hold)
                gone.cancel()
                await asyncio.wait([gone])
            assert gone.cancelled()
            assert await (await our.submit(TextInput("next"))) is not None

    run(test)


def test_client_that_leaves_at_the_very_moment_of_its_error_leaves_no_error_behind() -> None:
    async def test() -> None:
        async with lab() as our:
            our.runner.fail(Fault.ERROR)
            deliver = our.engine._deliver

            def deliver_and_cancel(outcomes: Sequence[Outcome]) -> None:
                deliver(outcomes)
                gone.cancel()

            our.engine._deliver = deliver_and_cancel  # type: ignore[method-assign]
            with our.runner.held() as hold:
                gone = await our.submit(TextInput("gone"))
                await entered(hold)
            await asyncio.wait([gone])
            assert gone.cancelled()

    run(test)


def test_expired_item_is_told_so_and_leaves_unrun() -> None:
    """Also while a device call hangs: a timer of the event loop tells it."""

    async def test() -> None:
        async with lab() as our:
            with our.runner.held() as hold:
                first = await our.submit(TextInput("first"))
                await entered(hold)
                late = await our.submit(TextInput("late"), deadline=our.clock.now + 0.01)
                assert isinstance(await outcome(late), DeadlineExceededError)
                assert our.engine.queue_items == 0
            await first
            assert not any(map(has("late"), our.runner.calls))

    run(test)


def test_device_thread_runs_nothing_that_is_late() -> None:
    """Also if the event loop was too busy to notice."""

    async def test() -> None:
        async with lab() as our:
            with our.runner.held() as hold:
                first = await our.submit(TextInput("first"))
                await entered(hold)
                late = await our.submit(TextInput("late"), deadline=our.clock.now + 1000)
                our.clock.now += 1000
            await first
            assert isinstance(await outcome(late), DeadlineExceededError)
            assert not any(map(has("late"), our.runner.calls))

    run(test)


def test_deadline_that_has_passed_is_not_even_queued() -> None:
    async def test() -> None:
        async with lab() as our:
            late = await our.submit(TextInput("late"), deadline=our.clock.now)
            assert isinstance(await outcome(late), DeadlineExceededError)
            assert not our.runner.calls

    run(test)


def test_result_after_the_deadline_is_dropped() -> None:
    async def test() -> None:
        async with lab() as our:
            with our.runner.held() as hold:
                late = await our.submit(TextInput("late"), deadline=our.clock.now + 0.01)
                await entered(hold)
                assert isinstance(await outcome(late), DeadlineExceededError)
            assert await (await our.submit(TextInput("next"))) is not None

    run(test)


@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_row_that_nobody_waits_for_leaves_its_generation(how: str) -> None:
    async def test() -> None:
        async with lab() as our:
            with our.runner.held() as hold:
                deadline = our.clock.now + 1000
                (gone,) = await our.submit_together(hold, caption("gone"), deadline=deadline)
                await entered(hold)  # generate
                stays = await our.submit(caption("stays"))
                for _ in range(2):  # generate, step
                    hold.let_one_go()
                    await entered(hold)
                hold.let_one_go()  # admit
                await entered(hold)  # step of both
                if how == "cancelled":
                    gone.cancel()
                    await asyncio.wait([gone])
                else:
                    our.clock.now = deadline
            assert words(await stays) == 3
            left = await outcome(gone)
            assert isinstance(left, asyncio.CancelledError if how == "cancelled" else DeadlineExceededError)
            assert our.runner.sizes("step") == [1, 2, 1, 1, 1]
            assert [has("gone")(call) for call in our.runner.calls if call.method == "drop"] == [True]

    run(test)


def test_generation_that_nobody_waits_for_is_not_stepped() -> None:
    async def test() -> None:
        async with lab() as our:
            with our.runner.held() as hold:
                gone = await our.submit(caption("gone"))
                await entered(hold)
                gone.cancel()
                await asyncio.wait([gone])
            await (await our.submit(TextInput("next")))
            assert not our.runner.sizes("step")

    run(test)
