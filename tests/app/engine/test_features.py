"""Encode once, ask many: features are cached, bounded in bytes, and encoded by one caller at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

from app.engine.features import FeatureCache, FeatureKey
from app.metrics import Metrics
from models.fake.runner import PREPROCESSING
from models.outputs import Features
from tests.app.engine.support import outcome, run


def key(name: str = "picture", tower: str = "tower") -> FeatureKey:
    return FeatureKey(tower, PREPROCESSING, name.encode())


class Tower:
    """Encodes when it is told to: new features each time, of `num_bytes`."""

    def __init__(self, num_bytes: int = 8) -> None:
        self.num_bytes = num_bytes
        self.num_begun = self.num_cancelled = 0
        self.ready = asyncio.Event()
        self.error: Exception | None = None

    async def encode(self) -> Features:
        self.num_begun += 1
        number = self.num_begun
        try:
            await self.ready.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return np.full(self.num_bytes, number, np.uint8)


class Setup:
    def __init__(self, max_bytes: int = 100, num_bytes: int = 8) -> None:
        self.metrics = Metrics()
        self.cache = FeatureCache(max_bytes, self.metrics)
        self.tower = Tower(num_bytes)

    async def ask(self, name: str = "picture", tower: str = "tower") -> asyncio.Task[Features]:
        """A task that waits for its features, when this returns."""
        task = asyncio.create_task(self.cache.get(key(name, tower), self.tower.encode))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return task

    def counts(self) -> list[int]:
        """hit, miss, joined."""
        read = self.metrics.registry.get_sample_value
        results = ("hit", "miss", "joined")
        return [int(read("blip_feature_cache_total", {"result": result}) or 0) for result in results]


async def leave(task: asyncio.Task[Features]) -> None:
    task.cancel()
    await asyncio.wait([task])


@pytest.fixture(autouse=True)
def nothing_unseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test may leave an exception that was never retrieved, or a task that is destroyed while pending."""
    yield
    assert not caplog.records


def test_second_request_finds_what_the_first_encoded() -> None:
    async def test() -> None:
        our = Setup()
        our.tower.ready.set()
        first = await (await our.ask())
        assert await (await our.ask()) is first
        assert our.tower.num_begun == 1
        assert our.counts() == [1, 1, 0]
        assert our.cache.bytes == 8

    run(test)


def test_concurrent_requests_share_one_encode() -> None:
    async def test() -> None:
        our = Setup()
        tasks = [await our.ask() for _ in range(5)]
        our.tower.ready.set()
        answers = await asyncio.gather(*tasks)
        assert all(answer is answers[0] for answer in answers)
        assert our.tower.num_begun == 1
        assert our.counts() == [0, 1, 4]

    run(test)


def test_images_and_towers_are_told_apart() -> None:
    async def test() -> None:
        our = Setup()
        our.tower.ready.set()
        for name, tower in (("a", "one"), ("b", "one"), ("a", "other")):
            await (await our.ask(name, tower))
        assert our.tower.num_begun == 3

    run(test)


def test_leader_that_leaves_does_not_take_the_others_with_it() -> None:
    async def test() -> None:
        our = Setup()
        leader, joiner = await our.ask(), await our.ask()
        await leave(leader)
        our.tower.ready.set()
        assert await joiner is not None
        assert our.tower.num_cancelled == 0
        assert our.cache.bytes == 8

    run(test)


def test_deadline_of_the_leader_is_its_own() -> None:
    async def test() -> None:
        our = Setup()

        async def impatient() -> Features:
            async with asyncio.timeout(0.001):
                return await our.cache.get(key(), our.tower.encode)

        leader = asyncio.create_task(impatient())
        await asyncio.sleep(0)
        joiner = await our.ask()
        assert isinstance(await outcome(leader), TimeoutError)
        our.tower.ready.set()
        assert await joiner is not None

    run(test)


def test_encode_that_nobody_waits_for_is_cancelled() -> None:
    async def test() -> None:
        our = Setup()
        tasks = [await our.ask() for _ in range(3)]
        for task in tasks:
            await leave(task)
        await our.cache.close()
        assert our.tower.num_cancelled == 1

    run(test)


def test_who_comes_while_an_encode_is_being_cancelled_begins_another() -> None:
    async def test() -> None:
        our = Setup()
        gone = await our.ask()
        gone.cancel()
        await asyncio.sleep(0)  # it leaves; its encode has not noticed yet
        late = await our.ask()
        our.tower.ready.set()
        assert await late is not None
        assert our.tower.num_begun == 2
        assert await (await our.ask()) is await late

    run(test)


def test_failed_encode_is_told_to_all_and_not_kept() -> None:
    async def test() -> None:
        our = Setup()
        our.tower.error = ValueError("broken")
        tasks = [await our.ask() for _ in range(3)]
        our.tower.ready.set()
        assert [str(await outcome(task)) for task in tasks] == ["broken"] * 3
        our.tower.error = None
        assert await (await our.ask()) is not None
        assert our.tower.num_begun == 2

    run(test)


def test_failure_that_nobody_saw_is_not_reported_by_the_event_loop() -> None:
    async def test() -> None:
        our = Setup()
        our.tower.error = ValueError("broken")
        gone = await our.ask()
        our.tower.ready.set()
        await asyncio.sleep(0)  # the encode fails
        await leave(gone)
        assert gone.cancelled() or isinstance(gone.exception(), ValueError)

    run(test)


def test_least_recently_used_features_leave_first() -> None:
    async def test() -> None:
        our = Setup(max_bytes=24)
        our.tower.ready.set()
        for name in ("a", "b", "c", "a", "d"):
            await (await our.ask(name))
        assert our.cache.bytes == 24
        assert our.counts() == [1, 4, 0]
        for name in ("a", "c", "d", "b"):
            await (await our.ask(name))
        assert our.counts() == [4, 5, 0]
        assert our.metrics.registry.get_sample_value("blip_feature_cache_returned_total") == 1  # b, once dropped

    run(test)


@pytest.mark.parametrize("max_bytes", [0, 7])
def test_features_larger_than_the_cache_are_answered_and_not_kept(max_bytes: int) -> None:
    async def test() -> None:
        our = Setup(max_bytes)
        our.tower.ready.set()
        assert (await (await our.ask())).nbytes == 8
        assert our.cache.bytes == 0
        await (await our.ask())
        assert our.tower.num_begun == 2

    run(test)


def test_closing_leaves_no_encode_behind() -> None:
    async def test() -> None:
        our = Setup()
        waiting = await our.ask()
        await our.cache.close()
        assert isinstance(await outcome(waiting), asyncio.CancelledError)
        assert len(asyncio.all_tasks()) == 2  # this one, and that of `run`

    run(test)
