"""How waiting work and running generations share the device. Synchronous; needs neither torch nor an event loop.

The rule:
1. Waiting work (encode, score, the start of a generation) and tokens of running generations take turns.
2. A call of waiting work has as many items as should fit into CALL_SECONDS, judging by past calls, and at least one.
3. After it, running generations get tokens until they have had STEP_SHARE of the device's time, and at least one for
   every row.
4. So a burst of encodes slows generations without freezing them, and a hundred generations delay an encode by one
   token. The share is small because a token is cheaper the more rows share it: it pays to let waiting work in first.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp

from app.engine.batching import BatchKey, Kind

CALL_SECONDS = 0.5
STEP_SHARE = 1 / 8
WEIGHT_OF_LATEST = 0.3  # in the moving average of seconds per item
MEMORY_SECONDS = 2.0  # of the device's time, after which what a rate was made of counts for 1 / e


class Turns:
    """Is told what has run, and decides what runs next. Times are in seconds."""

    def __init__(self) -> None:
        self._item_seconds: dict[BatchKey, float] = {}
        self._owed = 0.0  # seconds, to running generations
        self._step_due = False

    def is_for_steps(self) -> bool:
        """Whether running generations are next, even if work waits."""
        return self._step_due or self._owed > 0

    def most_items(self, key: BatchKey) -> float:
        """How many items a call may have; infinite until such a call has been timed."""
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
        """No generation runs: what was owed must not go to the next one."""
        self._owed = 0.0
        self._step_due = False


class Rates:
    """What a work item takes of the device, by kind: over the last seconds that its kind had. Calls are too uneven to
    be judged one by one: a batch of sixteen takes little longer than one item. A kind has what its items are made of
    in it, or many labels would be taken to need as long as as many pairs."""

    def __init__(self) -> None:
        self._seen: dict[Kind, tuple[float, float]] = {}  # seconds and items, of which older ones count less
        self._spent: dict[Kind, float] = {}  # since the last one of the kind finished

    def spent(self, kind: Kind, seconds: float) -> None:
        """A device call has run."""
        self._spent[kind] = self._spent.get(kind, 0.0) + seconds

    def finished(self, kind: Kind, number: int) -> None:
        """So many items have their answers."""
        latest = self._spent.pop(kind, 0.0)
        fading = exp(-latest / MEMORY_SECONDS)
        seconds, items = self._seen.get(kind, (0.0, 0.0))
        self._seen[kind] = seconds * fading + latest, items * fading + number

    def seconds(self, work: Mapping[Kind, int], unseen: float) -> float:
        """What so many items of each kind will take; `unseen`: each of a kind of which none has finished yet."""
        return sum(number * self._item_seconds(kind, unseen) for kind, number in work.items())

    def _item_seconds(self, kind: Kind, unseen: float) -> float:
        seconds, items = self._seen.get(kind, (unseen, 1.0))
        return seconds / items
