"""The batching policy: which waiting work runs next. Synchronous; needs neither torch nor an event loop."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice, zip_longest
from math import inf
from typing import NamedTuple, Protocol

from models.base import Item, ModelRunner, Op, Output

# A gradient takes three times as long as its forward pass, and all that it needs of that is kept meanwhile.
MOST_OF_OP = {Op.LOCALIZE: 4}


class Future(Protocol):
    """Where the outcome of a work item goes."""

    def done(self) -> bool: ...

    def set_result(self, result: Output, /) -> None: ...

    def set_exception(self, exception: BaseException, /) -> None: ...


class Kind(NamedTuple):
    """What is alike in how long it takes."""

    unit: str
    op: Op


class BatchKey(NamedTuple):
    """What must be equal for two work items to share a batch."""

    unit: str
    op: Op
    shape: Hashable
    part: int = 0  # unique for each part of a failed batch, so that nothing joins it

    @property
    def kind(self) -> Kind:
        return Kind(self.unit, self.op)


class Rows(NamedTuple):
    """The rows of a running generation."""

    number: int
    largest_bytes: int  # KV-cache bytes of the largest row; every slot is this big

    @property
    def bytes(self) -> int:
        return self.number * self.largest_bytes

    def joined_by(self, item: Item) -> Rows:
        return Rows(self.number + 1, max(self.largest_bytes, item.cache_bytes))


@dataclass(slots=True, eq=False)
class WorkItem:
    """One op on one input. Times are monotonic seconds."""

    runner: ModelRunner
    item: Item
    deadline: float | None
    enqueued: float
    future: Future
    owner: Hashable = None  # the request that it is of
    abandoned: bool = False  # nobody waits for it any more
    started: float | None = None
    finished: float | None = None
    key: BatchKey = field(init=False)
    arrival: int = field(init=False, default=0)  # the queue's order

    def __post_init__(self) -> None:
        self.key = BatchKey(self.runner.unit, self.item.op, self.item.key)

    def is_expired(self, now: float) -> bool:
        return self.deadline is not None and self.deadline <= now


class Group:
    """The waiting items of one key, in the order in which they are taken: turns go round over the owners, and each
    gives its oldest item. So one owner with a thousand items does not hold up one with a single item."""

    def __init__(self) -> None:
        self._by_owner: OrderedDict[Hashable, OrderedDict[WorkItem, None]] = OrderedDict()  # the next in turn first

    def __len__(self) -> int:
        return sum(map(len, self._by_owner.values()))

    def __iter__(self) -> Iterator[WorkItem]:
        rounds = zip_longest(*self._by_owner.values())
        return (work for one_each in rounds for work in one_each if work is not None)

    def oldest(self) -> WorkItem:
        return min((next(iter(items)) for items in self._by_owner.values()), key=lambda work: work.arrival)

    def add(self, work: WorkItem) -> None:
        self._by_owner.setdefault(work.owner, OrderedDict())[work] = None

    def add_first(self, work: WorkItem) -> None:
        self.add(work)
        self._by_owner[work.owner].move_to_end(work, last=False)
        self._by_owner.move_to_end(work.owner, last=False)

    def take(self) -> WorkItem:
        """The next in turn; its owner has the next turn after all others."""
        owner, items = next(iter(self._by_owner.items()))
        work, _ = items.popitem(last=False)
        self._by_owner.move_to_end(owner)
        if not items:
            del self._by_owner[owner]
        return work

    def remove(self, work: WorkItem) -> None:
        items = self._by_owner[work.owner]
        del items[work]
        if not items:
            del self._by_owner[work.owner]


class BatchQueue:
    """Waiting work items, handed out in batches with one key.

    Rules: the oldest item that may run sets the key, and the others with that key join it in turns over the owners, up
    to `max_batch_size`, or less where MOST_OF_OP has it. A running generation takes rows of its key while the KV caches
    of all rows fit into `max_cache_bytes`; no row overtakes one that waits for memory. Parts of a failed batch run
    first, each by itself.
    The cost of every operation but expiry depends on the items it takes, not on how many wait.
    """

    def __init__(self, max_batch_size: int, max_cache_bytes: int) -> None:
        self._max_batch_size = max_batch_size
        self._max_cache_bytes = max_cache_bytes
        self._waiting: OrderedDict[WorkItem, None] = OrderedDict()
        self._groups: dict[BatchKey, Group] = {}
        self._owners: Counter[Hashable] = Counter()  # how many items of each wait
        self._expired: list[WorkItem] = []
        self._earliest_deadline = inf  # a lower bound: not raised when items leave
        self._arrivals, self._returns, self._parts = count(1), count(-1, -1), count(1)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def owners(self) -> Container[Hashable]:
        """Those who have something that waits."""
        return self._owners

    def append(self, work: WorkItem) -> None:
        work.arrival = next(self._arrivals)
        self._group(work).add(work)
        self._note(work)

    def put_back(self, parts: Sequence[Sequence[WorkItem]]) -> None:
        """Put back parts of a failed batch: each runs by itself, before all else. Abandoned items are left out."""
        for part in reversed(parts):
            number = next(self._parts)
            for work in reversed(part):
                if work.abandoned:
                    continue
                work.key = work.key._replace(part=number)
                work.arrival = next(self._returns)
                self._group(work).add_first(work)
                self._note(work)
                self._waiting.move_to_end(work, last=False)

    def discard(self, work: WorkItem) -> None:
        """Remove an item, if it still waits."""
        if work in self._waiting:
            self._remove(work)

    def clear(self) -> None:
        self._waiting.clear()
        self._groups.clear()
        self._owners.clear()

    def next_batch(
        self,
        now: float,
        running: Mapping[BatchKey, Rows] | None = None,
        most_items: Callable[[BatchKey], float] = lambda _: inf,
    ) -> list[WorkItem]:
        """Take the next batch; empty if nothing may run now. Expired items are removed: see `take_expired`.

        `running`: the running generations; a batch with one of their keys is to join it. `most_items`: limit on a batch
        with this key.
        """
        self._expire(now)
        running = running or {}
        has_memory = True
        for oldest in self._oldest_of_each_key():
            key = oldest.key
            room = int(min(self._max_batch_size, MOST_OF_OP.get(key.op, inf), most_items(key)))
            if key.op is not Op.GENERATE:
                return self._take(key, room)
            if key.part and any(other.part for other in running.keys() - {key}):
                continue  # together, the halves of a batch that was too large would not fit either
            if has_memory and (fitting := self._num_fitting(key, room, running)):
                return self._take(key, fitting)
            has_memory = False  # nor for younger rows: a stream of small ones could starve a large one
        return []

    def take_expired(self) -> list[WorkItem]:
        """The items that expired since the last call."""
        expired, self._expired = self._expired, []
        return expired

    def oldest_seconds(self, now: float) -> float:
        """How long the oldest item has waited; 0 if none waits."""
        return max(0.0, now - next(iter(self._waiting)).enqueued) if self._waiting else 0.0

    def _oldest_of_each_key(self) -> Iterator[WorkItem]:
        if not self._waiting:
            return
        yield next(iter(self._waiting))  # nearly always the one that runs: no need to look at the others
        heads = sorted((group.oldest() for group in self._groups.values()), key=lambda work: work.arrival)
        yield from heads[1:]

    def _num_fitting(self, key: BatchKey, room: int, running: Mapping[BatchKey, Rows]) -> int:
        """How many of the next rows the memory has room for; one at least if nothing runs."""
        others = sum(rows.bytes for other, rows in running.items() if other != key)
        rows = running.get(key, Rows(0, 0))
        fitting = 0
        for work in islice(self._groups[key], room):
            rows = rows.joined_by(work.item)
            if others + rows.bytes > self._max_cache_bytes and (running or fitting):
                break
            fitting += 1
        return fitting

    def _take(self, key: BatchKey, room: int) -> list[WorkItem]:
        group = self._groups[key]
        batch = [group.take() for _ in range(min(room, len(group)))]
        for work in batch:
            self._forget(work)
        return batch

    def _group(self, work: WorkItem) -> Group:
        return self._groups.setdefault(work.key, Group())  # first: a key that has no hash leaves no trace

    def _note(self, work: WorkItem) -> None:
        self._waiting[work] = None
        self._owners[work.owner] += 1
        if work.deadline is not None:
            self._earliest_deadline = min(self._earliest_deadline, work.deadline)

    def _remove(self, work: WorkItem) -> None:
        self._groups[work.key].remove(work)
        self._forget(work)

    def _forget(self, work: WorkItem) -> None:
        """It has left its group."""
        del self._waiting[work]
        self._owners[work.owner] -= 1
        if not self._owners[work.owner]:
            del self._owners[work.owner]
        if not self._groups.get(work.key, True):
            del self._groups[work.key]

    def _expire(self, now: float) -> None:
        if now < self._earliest_deadline:
            return
        for work in [work for work in self._waiting if work.is_expired(now)]:
            self._remove(work)
            self._expired.append(work)
        deadlines = (work.deadline for work in self._waiting if work.deadline is not None)
        self._earliest_deadline = min(deadlines, default=inf)
