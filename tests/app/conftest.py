from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.app.support import Lab, lab


@dataclass(slots=True)
class Shared:
    """One service for all tests that do not disturb it, asked one request at a time."""

    lab: Lab
    runner: asyncio.Runner

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.runner.run(self.lab.client.request(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def ask(self, path: str, *image: bytes, **fields: Any) -> httpx.Response:
        return self.runner.run(self.lab.ask(path, *image, **fields))


@pytest.fixture(scope="session")
def shared() -> Iterator[Shared]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        entered = runner.run(stack.enter_async_context(lab()))
        yield Shared(entered, runner)
        runner.run(stack.aclose())
