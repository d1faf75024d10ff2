"""The embeddings of texts that come again and again, such as sets of labels."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import NamedTuple

from models.outputs import Scores

ENTRY_BYTES = 400  # of an entry, beside its numbers


class TextKey(NamedTuple):
    heads: str  # their unit
    digest: bytes  # SHA-256 of the text

    @classmethod
    def of(cls, heads: str, text: str) -> TextKey:
        return cls(heads, sha256(text.encode()).digest())


class TextCache:
    """An LRU cache bounded in bytes. Belongs to one event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[TextKey, Scores] = OrderedDict()
        self.bytes = 0

    def get(self, key: TextKey) -> Scores | None:
        if (vector := self._entries.get(key)) is not None:
            self._entries.move_to_end(key)
        return vector

    def keep(self, key: TextKey, vector: Scores) -> None:
        """A copy: the array that it came in may hold a whole batch."""
        if key in self._entries:
            return
        self._entries[key] = vector.copy()
        self.bytes += vector.nbytes + ENTRY_BYTES
        while self.bytes > self._max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self.bytes -= dropped.nbytes + ENTRY_BYTES
