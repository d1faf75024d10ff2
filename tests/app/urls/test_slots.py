"""Who fetches next."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

from app.urls.slots import Slots
from tests.app.support import run


class Crowd:
    """Tasks that take a slot, and keep it until they are told."""

    def __init__(self, number: int) -> None:
        self.slots = Slots(number)
        self.served: list[Hashable] = []
        self._leave: list[asyncio.Event] = []

    async def come(self, owner: Hashable) -> asyncio.Task[None]:
        leave = asyncio.Event()

        async def one() -> None:
            async with self.slots.one(owner):
                self.served.append(owner)
                self._leave.append(leave)
                await leave.wait()

        task = asyncio.create_task(one())
        await asyncio.sleep(0)
        return task

    async def free(self, number: int = 1) -> None:
        """Those who have been served longest go."""
        for _ in range(number):
            self._leave.pop(0).set()
            for _ in range(3):
                await asyncio.sleep(0)


def test_no_more_than_there_are() -> None:
    async def test() -> None:
        crowd = Crowd(2)
        for owner in "abc":
            await crowd.come(owner)
        assert crowd.served == ["a", "b"]
        await crowd.free()
        assert crowd.served == ["a", "b", "c"]
        await crowd.free(2)
        await crowd.come("d")
        assert crowd.served[-1] == "d"

    run(test)


def test_one_with_many_does_not_hold_up_one_with_a_single_one() -> None:
    async def test() -> None:
        crowd = Crowd(2)
        for owner in "aaaaab":
            await crowd.come(owner)
        await crowd.free()
        assert crowd.served == ["a", "a", "b"]
        await crowd.free(2)
        assert crowd.served == ["a", "a", "b", "a", "a"]

    run(test)


def test_who_leaves_while_waiting_leaves_nothing() -> None:
    async def test() -> None:
        crowd = Crowd(1)
        await crowd.come("a")
        left, stays = await crowd.come("b"), await crowd.come("c")
        left.cancel()
        await crowd.free()
        assert (crowd.served, crowd.slots.num_waiting) == (["a", "c"], 0)
        await crowd.free()
        await stays
        await crowd.come("d")
        assert crowd.served[-1] == "d"

    run(test)


def test_a_slot_given_to_one_who_leaves_at_once_goes_on() -> None:
    async def test() -> None:
        crowd = Crowd(1)
        async with crowd.slots.one("a"):
            second = await crowd.come("b")
            await crowd.come("c")
        second.cancel()  # it has its slot, and does not know it yet
        for _ in range(4):
            await asyncio.sleep(0)
        assert crowd.served == ["c"]

    run(test)
