"""Whose turn the device is, and for how much. Policy alone: synchronous, without torch and without an event loop.

The rule:
1. Waiting work (encode, score, the beginning of a generation) and tokens of running generations take turns.
2. A call of waiting work has as many items as take CALL_SECONDS by what such calls took before, and at least one.
3. After it, running generations have tokens until they had STEP_SHARE of the device, and at least one for every row.
4. So a burst of encodes slows generations, but does not freeze them; and a hundred generations delay an encode by one
   token. The share is small, as tokens are cheaper the more rows share them: work that waits is better let in first.
"""

from __future__ import annotations

from app.engine.batching import BatchKey

CALL_SECONDS = 0.5
STEP_SHARE = 1 / 8
WEIGHT_OF_LATEST = 0.3  # in the running mean of what an item takes


class Turns:
    """Told what was run, it says what is next. Times are seconds."""

    def __init__(self) -> None:
        self._item_seconds: dict[BatchKey, float] = {}
        self._owed = 0.0  # to running generations
        self._step_due = False

    def is_for_steps(self) -> bool:
        """Whether running generations are next, even if work waits."""
        return self._step_due or self._owed > 0

    def most_items(self, key: BatchKey) -> float:
        """How many items a call may have; infinite as long as nothing is known of such calls."""
        seconds = self._item_seconds.get(key._replace(part=0), 0.0)
        return max(1.0, CALL_SECONDS / seconds) if seconds else float("inf")

    def called(self, key: BatchKey, size: int, seconds: float) -> None:
        """A call of waiting work has run."""
        kind, latest = key._replace(part=0), seconds / size
        before = self._item_seconds.get(kind, latest)
        self._item_seconds[kind] = before + WEIGHT_OF_LATEST * (latest - before)
        self._owed += seconds * STEP_SHARE / (1 - STEP_SHARE)
        self._step_due = True

    def stepped(self, seconds: float) -> None:
        """Every running generation has had a token."""
        self._owed = max(0.0, self._owed - seconds)
        self._step_due = False

    def none_runs(self) -> None:
        """Nothing is owed: else the next generation would be paid for hours in which it was not there."""
        self._owed = 0.0
        self._step_due = False
