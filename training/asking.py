"""Questions to a running service, and how many of its answers were right."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from tqdm import tqdm

LOSS, LOST_ANSWERS = 0.003, 2  # how much a share may fall in another dtype: the larger of these


@dataclass(slots=True)
class Tally:
    """How many were right and asked, by the name of the figure; and the goals."""

    goals: Mapping[str, float]
    right: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    failed: int = 0  # requests

    def add(self, name: str, is_right: bool) -> None:
        self.right[name] = self.right.get(name, 0) + is_right
        self.asked[name] = self.asked.get(name, 0) + 1

    def share(self, name: str) -> float:
        return self.right[name] / self.asked[name]

    def table(self) -> str:
        width = max(map(len, self.asked))
        lines = [f"{'figure':{width}}  {'right':>6} {'asked':>6} {'share':>8} {'goal':>7}"]
        for name in sorted(self.asked, key=lambda name: (name not in self.goals, name.lower())):
            asked, goal = self.asked[name], " " * 7
            verdict = ""
            if name in self.goals:
                goal = f"{self.goals[name]:7.1%}"
                verdict = "  met" if self.share(name) >= self.goals[name] else "  MISSED"
            line = f"{name:{width}}  {self.right[name]:6} {asked:6} {self.share(name):8.2%} {goal}{verdict}"
            lines.append(line.rstrip())
        return "\n".join(lines)

    @property
    def all_met(self) -> bool:
        """A goal whose figure was never asked for is missed."""
        return all(name in self.asked and self.share(name) >= goal for name, goal in self.goals.items())

    def below(self, reference: Tally) -> list[str]:
        """The figures with a goal that have lost more than LOSS, or were never asked for."""
        return [
            f"{name}: {self.share(name):.2%}, the reference has {reference.share(name):.2%}"
            if name in self.asked
            else f"{name}: not asked"
            for name in self.goals
            if name in reference.asked
            and (name not in self.asked or reference.share(name) - self.share(name) > self._loss(name) + 1e-9)
        ]

    def _loss(self, name: str) -> float:
        return max(LOSS, LOST_ANSWERS / self.asked[name])


class Client:
    """Asks the service; a request that is turned away for load is sent again when the service says."""

    def __init__(self, http: httpx.AsyncClient, model: str, concurrency: int) -> None:
        self._http, self._model = http, model
        self._permits = asyncio.Semaphore(concurrency)
        self.requests = self.failed = self.postponed = 0

    async def ask(self, path: str, picture: bytes, **fields: object) -> dict[str, Any] | None:
        """The answer; None if the request failed, which is counted."""
        async with self._permits:
            self.requests += 1
            body = {"model": self._model, "image": base64.b64encode(picture).decode(), **fields}
            try:
                for _ in range(10):
                    response = await self._http.post(path, json=body)
                    if response.status_code != httpx.codes.TOO_MANY_REQUESTS:
                        break
                    self.postponed += 1
                    await asyncio.sleep(int(response.headers["Retry-After"]))
                response.raise_for_status()
                return response.json()
            except httpx.HTTPError as error:
                self.failed += 1
                tqdm.write(f"{path}: {error!r}")
                return None
