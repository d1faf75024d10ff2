"""An engine with fake runners, and helpers for what the tests do with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from app.engine.engine import Engine, StageTimes
from app.metrics import Metrics
from models.base import Item, Op
from models.fake.runner import Call, FakeRunner, Hold
from models.inputs import CaptionInput, GenerationSettings, Input, TextInput
from models.outputs import Output

T = TypeVar("T")

RED = np.tile(np.array([1, 0, 0], np.float32), (16, 1))


def run(test: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return asyncio.run(asyncio.wait_for(test(), 60))


async def entered(hold: Hold) -> None:
    """Wait until a device call is held."""
    assert await asyncio.to_thread(hold.entered)


@dataclass(slots=True)
class Clock:
    """Monotonic seconds that pass when a test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Lab:
    engine: Engine
    runner: FakeRunner
    metrics: Metrics
    clock: Clock

    async def submit(self, request: Input, deadline: float | None = None) -> asyncio.Task[Output]:
        """A task that has submitted, when this returns."""
        item = self.item(request)
        times = StageTimes(self.metrics)
        task = asyncio.create_task(self.engine.submit(self.runner, item, deadline=deadline, times=times))
        await asyncio.sleep(0)
        return task

    async def submit_together(self, hold: Hold, *requests: Input, deadline: float | None = None) -> list[Any]:
        """Tasks whose work waits together; the device call that they waited for has been let go."""
        blocker = await self.submit(TextInput("blocker"))
        await entered(hold)
        tasks = [await self.submit(request, deadline) for request in requests]
        self.runner.calls.clear()
        hold.let_one_go()
        await outcome(blocker)
        return tasks

    def item(self, request: Input) -> Item:
        item = self.runner.prepare(request)
        return replace(item, features=RED.copy()) if item.op is Op.GENERATE else item

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"blip_{name}", labels) or 0.0

    def failures(self, kind: str, op: str = "score") -> float:
        return self.count("batch_failures_total", unit="fake", op=op, kind=kind)


@asynccontextmanager
async def lab(max_batch_size: int = 16) -> AsyncIterator[Lab]:
    metrics, clock = Metrics(), Clock()
    engine = Engine(metrics, max_batch_size=max_batch_size, max_cache_bytes=2**30, clock=clock)
    errors: list[object] = []  # such as exceptions that were never retrieved
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    engine.start()
    try:
        yield Lab(engine, FakeRunner(), metrics, clock)
    finally:
        await engine.stop()
    assert errors == []


def caption(name: str, num_words: int = 3) -> CaptionInput:
    return CaptionInput(name, GenerationSettings(min_new_tokens=num_words))


def has(name: str, *methods: str) -> Callable[[Call], bool]:
    """Whether a device call (of `methods`, or any) runs the request with that text or prompt."""

    def names(payload: object) -> bool:
        match payload:
            case TextInput(text):
                return text == name
            case CaptionInput(prompt):
                return prompt == name
        return False

    return lambda call: (not methods or call.method in methods) and any(map(names, call.payloads))


async def outcome(task: Awaitable[T]) -> T | BaseException:
    """The result, or what was raised instead."""
    return (await asyncio.gather(task, return_exceptions=True))[0]
