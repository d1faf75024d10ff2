"""What heads have made of the latest images, such as the keys and values that every question about one looks at."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import ref

from app.metrics import Metrics
from models.outputs import Features


class KeptKey(NamedTuple):
    unit: str
    features: int  # its `id`


@dataclass(slots=True, eq=False)
class Entry:
    features: ref[Features]  # what was made of an image goes with its features
    made: Any
    num_bytes: int
    was_used: bool = False


class KeptCache:
    """A `models.base.Kept`, bounded in bytes: the latest of each unit. What was asked for again gets a second turn, so
    that a stream of new images does not at once take what a conversation is about.

    Source: the second chance of Corbato 1969 (the clock).

    Belongs to the device thread; `bytes` is read elsewhere."""

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self.max_bytes = max_bytes
        self._looked_up = {found: metrics.feature_cache_kept.labels(found) for found in ("hit", "miss")}
        self._entries: OrderedDict[KeptKey, Entry] = OrderedDict()
        self.bytes = 0

    def get(self, unit: str, features: Features) -> Any | None:
        key = KeptKey(unit, id(features))
        entry = self._entries.get(key)
        found = entry is not None and entry.features() is features
        self._looked_up["hit" if found else "miss"].inc()
        if entry is None or not found:
            return None
        entry.was_used = True
        self._entries.move_to_end(key)
        return entry.made

    def keep(self, unit: str, features: Features, num_bytes: int, made: Any) -> None:
        if num_bytes > self.max_bytes:
            return
        self._drop([key for key, entry in self._entries.items() if entry.features() is None])
        self._drop([key for key in (KeptKey(unit, id(features)),) if key in self._entries])
        while self.bytes + num_bytes > self.max_bytes:
            oldest, entry = next(iter(self._entries.items()))
            if entry.was_used:  # since its last turn: it gets another
                entry.was_used = False
                self._entries.move_to_end(oldest)
            else:
                self._drop([oldest])
        self._entries[KeptKey(unit, id(features))] = Entry(ref(features), made, num_bytes)
        self.bytes += num_bytes

    def _drop(self, keys: list[KeptKey]) -> None:
        for key in keys:
            self.bytes -= self._entries.pop(key).num_bytes
