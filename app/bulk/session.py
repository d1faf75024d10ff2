"""One run on an event loop: the service, the client, the signals."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from app.bulk import backend
from app.bulk.failing import Failures
from app.bulk.jobs import Job
from app.bulk.pacing import PacedTransport
from app.bulk.pictures import Limits, allow_large
from app.bulk.plan import Plan
from app.bulk.progress import Progress
from app.bulk.run import Run
from app.bulk.window import Window
from app.bulk.writers.writer import Writer
from app.start.bulk import Options, UsageError
from blip_client import AsyncClient
from blip_client.results import CheckpointInfo, ModelsAnswer

T = TypeVar("T")
MORE_SECONDS = 5.0  # than the service takes before it gives up itself
START_SECONDS = 65.0  # for the first answer, which tells how long others may take


@dataclass(frozen=True, slots=True)
class Work:
    """What a run is made of."""

    options: Options
    job: Job
    plan: Plan
    writer: Writer
    failures: Failures
    progress: Progress
    window: Window


def on_a_loop(work: Coroutine[Any, Any, T]) -> T:
    """uvloop's, where it is, as the service's own process has it."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def ask_all(work: Work) -> int:
    """Returns 0, or 128 and the signal that ended it early."""
    options = work.options
    async with AsyncExitStack() as stack:
        if options.url:
            url, inner = options.url, backend.elsewhere(options.url)
        else:
            url, inner = backend.HERE, await stack.enter_async_context(backend.in_this_process(options.settings))
        changed = asyncio.Event()
        transport = PacedTransport(inner, work.window, changed.set)
        stack.push_async_callback(transport.aclose)
        told = await _client(url, options, transport).models()
        seconds = told.limits["request_timeout_seconds"] + MORE_SECONDS
        client = _client(url, options, transport, seconds)
        run = Run(
            client,
            work.job,
            work.writer,
            work.failures,
            work.progress,
            work.window,
            transport,
            changed,
            limits=None if options.no_resize else _limits(told, options, work.job.task),
            min_confidence=options.min_confidence or 0.0,
            fail_fast=options.fail_fast,
        )
        work.progress.begin(work.plan.num_to_do + work.plan.num_done, work.plan.num_done)
        with _signals(run, work.progress) as caught:
            await run.every(work.plan)
        return 128 + caught[0] if caught else 0


def _client(
    url: str, options: Options, transport: PacedTransport, timeout_seconds: float = START_SECONDS
) -> AsyncClient:
    """Raises UsageError."""
    try:
        return AsyncClient(url, retries=options.retries, timeout_seconds=timeout_seconds, transport=transport)
    except (ValueError, httpx.InvalidURL) as error:
        raise UsageError(f"{error}") from None


def _limits(told: ModelsAnswer, options: Options, task: str) -> Limits:
    allow_large()
    return Limits.told(told.limits, _checkpoint(told, options.asked.get("model"), task).image_size)


def _checkpoint(told: ModelsAnswer, name: str | None, task: str) -> CheckpointInfo:
    """Raises UsageError."""
    for model in told.models:
        if name in (None, model.name) and task in model.tasks:
            return model.tasks[task]
    served = ", ".join(model.name for model in told.models if task in model.tasks)
    wanted = f"no model {name} that has {task}" if name else f"no model that has {task}"
    raise UsageError(f"the service has {wanted}{f'; there are {served}' if served else ''}")


@contextmanager
def _signals(run: Run, progress: Progress) -> Iterator[list[int]]:
    """The first one lets finish what was begun, the second one nothing."""
    caught: list[int] = []

    def handle(number: int) -> None:
        if caught:
            run.cancel()
            return
        caught.append(number)
        progress.tell(f"interrupted: {run.num_begun} pictures that were begun are finished; once more ends it at once")
        run.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle, number)
    try:
        yield caught
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
