"""The batching policy: which waiting work runs next. Synchronous; needs neither torch nor an event loop."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from math import inf
from typing import NamedTuple, Protocol

from models.base import Item, ModelRunner, Op
from models.outputs import Output, Video

# A gradient takes three times as long as its forward pass, and all that it needs of that is kept meanwhile.
MOST_OF_OP = {Op.LOCALIZE: 4}
# An image's keys and values are projected once for all items of a batch that are about it, which takes a CPU as long as
# two or three pairs take. One by one, of many owners, each item would pay for them.
ITEMS_OF_IMAGE = 4  # in a turn


class Future(Protocol):
    """Where the outcome of a work item goes."""

    def done(self) -> bool: ...

    def set_result(self, result: Output, /) -> None: ...

    def set_exception(self, exception: BaseException, /) -> None: ...


class Kind(NamedTuple):
    """What is alike in how long it takes."""

    unit: str
    op: Op
    what: Hashable = None  # of scores alone: a pair takes twenty times as long as a text
    video: bool = False

    @classmethod
    def of(cls, unit: str, op: Op, asked: Hashable, *, video: bool) -> Kind:
        """Rows of one generation share its steps, whatever they were made of."""
        return cls(unit, op, asked, video) if op is Op.SCORE else cls(unit, op)

    @classmethod
    def of_item(cls, unit: str, item: Item) -> Kind:
        return cls.of(unit, item.op, item.asked, video=isinstance(item.features, Video))


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
    looks: tuple[tuple[float, int], ...] = ()  # of each: tokens after which it has left, at most; `id` of its features

    @property
    def bytes(self) -> int:
        return self.number * self.largest_bytes

    def joined_by(self, item: Item) -> Rows:
        return Rows(
            self.number + 1,
            max(self.largest_bytes, item.cache_bytes),
            (*self.looks, (item.num_new_tokens, id(item.features))),
        )

    def gain_by(self, item: Item, enough_images: int | None) -> bool:
        """Whether a step should have its row too. Not where it has enough images: another would make each little
        cheaper, and take memory for its keys and values. But a row waits for none that may stay longer than itself."""
        if enough_images is None or any(image == id(item.features) for _, image in self.looks):
            return True
        return len({image for left, image in self.looks if left <= item.num_new_tokens}) < enough_images


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
    last_step: int = 0  # of its generation: by then its row has left
    key: BatchKey = field(init=False)
    kind: Kind = field(init=False)
    turn: tuple[float, int] | None = field(init=False, default=None)  # its place in the queue, while it waits

    def __post_init__(self) -> None:
        self.key = BatchKey(self.runner.unit, self.item.op, self.item.shape)
        self.kind = Kind.of_item(self.runner.unit, self.item)

    @property
    def image(self) -> int | None:
        """The `id` of the features that it is about."""
        return None if self.item.features is None else id(self.item.features)

    @property
    def share(self) -> float:
        """Of its owner's turn."""
        return 1.0 if self.image is None else 1 / ITEMS_OF_IMAGE

    def is_expired(self, now: float) -> bool:
        return self.deadline is not None and self.deadline <= now


class Turn(NamedTuple):
    """Of an owner. `left`: the share of it that no item has yet."""

    start: float
    left: float
    image: int | None = None


class Fairness:
    """Whose item is next: start-time fair queuing, as Goyal, Vin and Cheng give it (SIGCOMM 1996), over all keys.

    The rule: a turn starts in the present round, or in the one after its owner's last turn. It is one item, or up to
    ITEMS_OF_IMAGE about one image, for the sake of what they share. A round is over when every owner that waits could
    have had one turn. Who starts in an earlier round runs first. So one with a thousand items holds up one with a
    single item by a turn, whatever their ops, and each gets its share for as long as it waits.
    """

    def __init__(self) -> None:
        self._round = 0.0
        self._last: dict[Hashable, Turn] = {}  # by owner that waits

    def start(self, work: WorkItem) -> float:
        """The round in which the new item starts."""
        turn = self._last.get(work.owner, Turn(self._round - 1, 0.0))
        if turn.start < self._round or turn.left < work.share or turn.image != work.image:
            turn = Turn(max(self._round, turn.start + 1), 1.0, work.image)
        self._last[work.owner] = turn._replace(left=turn.left - work.share)
        return turn.start

    def took(self, batch: Sequence[WorkItem], num_owners: int) -> None:
        """Items leave to run, out of those of so many owners."""
        self._round += sum(work.share for work in batch) / num_owners

    def forget(self, owner: Hashable) -> None:
        """Nothing of it waits any more."""
        self._last.pop(owner, None)


class BatchQueue:
    """Waiting work items, handed out in batches with one key.

    Rules: the first item that may run, by Fairness, sets the key, and the next ones with that key join it, up to
    `max_batch_size`, or less where MOST_OF_OP has it. A running generation takes rows of its key while the KV caches of
    all rows fit into `max_cache_bytes`, and while its steps gain by it (`Rows.gain_by`); no row overtakes one that
    waits. Parts of a failed batch run first, each by itself.
    """

    def __init__(self, max_batch_size: int, max_cache_bytes: int) -> None:
        self._max_batch_size = max_batch_size
        self._max_cache_bytes = max_cache_bytes
        self._fairness = Fairness()
        self._waiting: list[WorkItem] = []  # the next in turn first
        self._groups: dict[BatchKey, list[WorkItem]] = {}  # by key, likewise
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
        self._groups.setdefault(work.key, [])  # first: a key that has no hash leaves no trace
        self._add(work, (self._fairness.start(work), next(self._arrivals)))

    def put_back(self, parts: Sequence[Sequence[WorkItem]]) -> None:
        """Put back parts of a failed batch: each runs by itself, before all else. Abandoned items are left out."""
        for part in reversed(parts):
            number = next(self._parts)
            for work in reversed(part):
                if not work.abandoned:
                    work.key = work.key._replace(part=number)
                    self._add(work, (-inf, next(self._returns)))

    def discard(self, work: WorkItem) -> None:
        """Remove an item, if it still waits."""
        if work.turn is not None:
            self._remove(work)

    def clear(self) -> None:
        for work in tuple(self._waiting):
            self._remove(work)

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
        for key in self._keys():
            room = int(min(self._max_batch_size, MOST_OF_OP.get(key.op, inf), most_items(key)))
            if key.op is not Op.GENERATE:
                return self._take(key, room)
            if key.part and any(other.part for other in running.keys() - {key}):
                continue  # together, the halves of a batch that was too large would not fit either
            if has_memory:  # else not for younger rows either: a stream of small ones could starve a large one
                fitting, has_memory = self._num_fitting(key, room, running)
                if fitting:
                    return self._take(key, fitting)
        return []

    def take_expired(self) -> list[WorkItem]:
        """The items that expired since the last call."""
        expired, self._expired = self._expired, []
        return expired

    def oldest_seconds(self, now: float) -> float:
        """How long the oldest item has waited; 0 if none waits."""
        return max(0.0, now - min((work.enqueued for work in self._waiting), default=now))

    def _keys(self) -> Iterator[BatchKey]:
        """In the order of the first item of each."""
        if self._waiting:
            yield self._waiting[0].key  # nearly always the one that runs: no need to look at the others
            yield from sorted(self._groups, key=lambda key: _turn(self._groups[key][0]))[1:]

    def _num_fitting(self, key: BatchKey, room: int, running: Mapping[BatchKey, Rows]) -> tuple[int, bool]:
        """How many of the next rows may join: as `BatchQueue` says; one at least if nothing runs. And whether it was
        not memory that kept others away."""
        others = sum(rows.bytes for other, rows in running.items() if other != key)
        rows = running.get(key, Rows(0, 0))
        fitting = 0
        for work in islice(self._groups[key], room):
            if not rows.gain_by(work.item, work.runner.capabilities.enough_images):
                break
            rows = rows.joined_by(work.item)
            if others + rows.bytes > self._max_cache_bytes and (running or fitting):
                return fitting, False
            fitting += 1
        return fitting, True

    def _take(self, key: BatchKey, room: int) -> list[WorkItem]:
        batch = self._groups[key][:room]
        self._fairness.took(batch, len(self._owners))
        for work in batch:
            self._remove(work)
        return batch

    def _add(self, work: WorkItem, turn: tuple[float, int]) -> None:
        work.turn = turn
        insort(self._waiting, work, key=_turn)
        insort(self._groups.setdefault(work.key, []), work, key=_turn)
        self._owners[work.owner] += 1
        if work.deadline is not None:
            self._earliest_deadline = min(self._earliest_deadline, work.deadline)

    def _remove(self, work: WorkItem) -> None:
        group = self._groups[work.key]
        for place in (self._waiting, group):
            del place[bisect_left(place, _turn(work), key=_turn)]
        if not group:
            del self._groups[work.key]
        self._owners[work.owner] -= 1
        if not self._owners[work.owner]:
            del self._owners[work.owner]
            self._fairness.forget(work.owner)
        work.turn = None

    def _expire(self, now: float) -> None:
        if now < self._earliest_deadline:
            return
        for work in [work for work in self._waiting if work.is_expired(now)]:
            self._remove(work)
            self._expired.append(work)
        deadlines = (work.deadline for work in self._waiting if work.deadline is not None)
        self._earliest_deadline = min(deadlines, default=inf)


def _turn(work: WorkItem) -> tuple[float, int]:
    assert work.turn is not None, "it waits"
    return work.turn
