"""The batching policy, tested without an event loop."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import pairwise

import numpy as np
import pytest

from app.engine.batching import BatchKey, BatchQueue, Rows, WorkItem
from models.base import Capabilities, Item, Op
from models.fake.runner import FakeRunner
from models.outputs import Features, Output

RUNNER, OTHER = FakeRunner("one"), FakeRunner("other")
BOUNDED = FakeRunner("bounded", Capabilities(enough_images=3))


class Nobody:
    """A future that nobody waits for."""

    def done(self) -> bool:
        return True

    def set_result(self, result: Output, /) -> None:
        raise AssertionError(result)

    def set_exception(self, exception: BaseException, /) -> None:
        raise AssertionError(exception)


def work(
    op: Op = Op.SCORE,
    key: Hashable = None,
    *,
    runner: FakeRunner = RUNNER,
    deadline: float | None = None,
    enqueued: float = 0.0,
    cache_bytes: int = 0,
    num_new_tokens: int = 0,
    features: Features | None = None,
    owner: Hashable = None,
) -> WorkItem:
    item = Item(op, key, None, features, cache_bytes=cache_bytes, num_new_tokens=num_new_tokens)
    return WorkItem(runner, item, deadline, enqueued, Nobody(), owner)


def queue_of(*items: WorkItem, max_batch_size: int = 4, max_cache_bytes: int = 100) -> BatchQueue:
    queue = BatchQueue(max_batch_size, max_cache_bytes)
    for item in items:
        queue.append(item)
    return queue


def test_empty_queue_has_no_batch() -> None:
    queue = queue_of()
    assert queue.next_batch(now=0) == []
    assert len(queue) == 0
    assert queue.oldest_seconds(now=5) == 0


def test_oldest_runs_first_with_what_shares_its_key() -> None:
    a, b, c, d = work(key=1), work(key=2), work(key=1), work(key=2)
    queue = queue_of(a, b, c, d)
    assert queue.next_batch(now=0) == [a, c]
    assert queue.next_batch(now=0) == [b, d]


@pytest.mark.parametrize("other", [work(Op.ENCODE), work(key="long"), work(runner=OTHER)])
def test_unit_op_and_shape_are_not_mixed(other: WorkItem) -> None:
    first = work()
    assert queue_of(first, other).next_batch(now=0) == [first]


def test_batch_is_bounded_and_keeps_the_order_of_arrival() -> None:
    items = [work() for _ in range(10)]
    queue = queue_of(*items)
    assert [queue.next_batch(now=0) for _ in range(4)] == [items[:4], items[4:8], items[8:], []]


def test_turns_go_round_over_owners() -> None:
    a, b, c = ([work(owner=owner) for _ in range(number)] for owner, number in (("a", 6), ("b", 1), ("c", 2)))
    queue = queue_of(*a, *b, *c)
    assert queue.next_batch(now=0) == [a[0], b[0], c[0], a[1]]
    assert queue.next_batch(now=0) == [c[1], a[2], a[3], a[4]]
    assert queue.next_batch(now=0) == [a[5]]


def test_a_turn_is_up_to_four_items_about_one_image() -> None:
    images = [np.zeros(1) for _ in range(3)]
    a = [work(owner="a", features=image) for image in (*[images[0]] * 6, images[1])]
    c = [work(owner="c", features=images[2]) for _ in range(2)]
    queue = queue_of(*a, b := work(owner="b"), *c)
    assert queue.next_batch(now=0) == a[:4]
    assert queue.next_batch(now=0) == [b, *c, a[4]]
    assert queue.next_batch(now=0) == a[5:]


def test_many_about_one_image_hold_up_one_by_a_turn() -> None:
    image, other = np.zeros(1), np.zeros(1)
    many = [work(owner="a", features=image) for _ in range(40)]
    queue = queue_of(*many)
    for _ in range(5):
        queue.next_batch(now=0)
    queue.append(one := work(owner="b", features=other))
    assert [queue.next_batch(now=0) for _ in range(2)] == [many[20:24], [one, *many[24:27]]]


def test_who_comes_late_has_a_turn_in_the_next_batch() -> None:
    many = [work(owner="a") for _ in range(12)]
    queue = queue_of(*many)
    queue.next_batch(now=0)
    queue.append(one := work(owner="b"))
    assert one in queue.next_batch(now=0)


def test_turns_hold_for_the_rows_of_a_generation_too() -> None:
    many = [work(Op.GENERATE, owner="a", cache_bytes=40) for _ in range(3)]
    queue = queue_of(*many, one := work(Op.GENERATE, owner="b", cache_bytes=40))
    assert queue.next_batch(now=0) == [many[0], one]


def test_turns_go_round_over_owners_whatever_their_ops() -> None:
    """So a generation does not wait for all that was scored before it."""
    pairs = [work(Op.SCORE, owner="a") for _ in range(12)]
    queue = queue_of(*pairs)
    queue.next_batch(now=0)
    queue.append(question := work(Op.GENERATE, owner="b"))
    queue.append(picture := work(Op.ENCODE, owner="c"))
    assert [queue.next_batch(now=0) for _ in range(3)] == [pairs[4:8], [question], [picture]]


def test_stream_of_single_items_does_not_starve_one_of_many() -> None:
    """At most a dozen owners wait: within two rounds, the one with many has its next turn."""
    queue = queue_of(*[work(Op.SCORE, owner="many") for _ in range(8)], max_batch_size=1)
    turns = []
    for owner in range(100):
        queue.append(work(owner=owner))
        if owner >= 3:
            turns += queue.next_batch(now=0)
    places = [place for place, one in enumerate(turns) if one.owner == "many"]
    assert len(places) == 8
    assert all(later - earlier <= 24 for earlier, later in pairwise(places))


def test_owners_are_those_who_have_something_waiting() -> None:
    a, b = work(owner="a"), work(owner="b")
    queue = queue_of(a, work(owner="a"), b)
    queue.discard(b)
    assert ("a" in queue.owners, "b" in queue.owners) == (True, False)
    queue.next_batch(now=0)
    assert "a" not in queue.owners


def test_batch_of_one_is_always_possible() -> None:
    first, second = work(), work()
    queue = queue_of(first, second, max_batch_size=1)
    assert [queue.next_batch(now=0), queue.next_batch(now=0)] == [[first], [second]]


def test_stream_of_another_key_starves_nobody() -> None:
    queue = queue_of(*[work(key="popular") for _ in range(4)])
    rare = work(key="rare")
    queue.append(rare)
    batches = []
    for _ in range(3):
        queue.append(work(key="popular"))
        batches.append(queue.next_batch(now=0))
    assert batches[1] == [rare]


def test_expired_items_leave_unrun() -> None:
    a, b, c = work(deadline=10), work(deadline=2), work()
    queue = queue_of(a, b, c)
    assert queue.next_batch(now=3) == [a, c]
    assert queue.take_expired() == [b]
    assert queue.take_expired() == []


def test_deadline_is_the_first_moment_too_late() -> None:
    item = work(deadline=2)
    assert queue_of(item).next_batch(now=2) == []
    assert queue_of(work(deadline=2)).next_batch(now=1.99) != []


def test_later_deadlines_are_seen_after_earlier_ones() -> None:
    items = [work(key=number, deadline=deadline) for number, deadline in enumerate((5, 3, 9, 7, 1))]
    queue = queue_of(*items)
    expired = []
    for now in (2, 4, 6, 8):
        queue.put_back([queue.next_batch(now)])
        expired.append(queue.take_expired())
    assert expired == [[items[4]], [items[1]], [items[0]], [items[3]]]


def test_abandoned_items_leave_unrun() -> None:
    a, b, c = work(), work(key="alone"), work()
    queue = queue_of(a, b, c)
    queue.discard(a)
    queue.discard(b)
    assert len(queue) == 1
    assert queue.next_batch(now=0) == [c]
    queue.discard(c)  # runs already: nothing happens
    assert len(queue) == 0


def test_age_is_that_of_the_oldest() -> None:
    a, b = work(enqueued=10), work(enqueued=12)
    queue = queue_of(a, b)
    assert queue.oldest_seconds(now=15) == 5
    queue.discard(a)
    assert queue.oldest_seconds(now=15) == 3


def test_cleared_queue_is_empty() -> None:
    queue = queue_of(work(), work(key=2))
    queue.clear()
    assert len(queue) == 0
    assert queue.next_batch(now=0) == []


def test_parts_of_a_failed_batch_run_next_each_by_itself() -> None:
    failed = [work() for _ in range(4)]
    queue = queue_of(*failed)
    queue.next_batch(now=0)
    queue.append(late := work())
    queue.put_back([failed[:2], failed[2:]])
    assert [queue.next_batch(now=0) for _ in range(3)] == [failed[:2], failed[2:], [late]]


def test_abandoned_and_expired_items_are_not_tried_again() -> None:
    a, b, c = work(), work(deadline=5), work()
    queue = queue_of(a, b, c)
    queue.next_batch(now=0)
    a.abandoned = True
    queue.put_back([[a, b, c]])
    assert queue.next_batch(now=6) == [c]
    assert queue.take_expired() == [b]


def test_key_without_hash_is_refused_without_a_trace() -> None:
    queue = queue_of()
    with pytest.raises(TypeError):
        queue.append(work(key=[]))  # type: ignore[arg-type]
    assert len(queue) == 0
    assert queue.next_batch(now=0) == []


def test_no_more_of_an_op_than_it_may_have() -> None:
    items = [work(Op.LOCALIZE) for _ in range(6)]
    queue = queue_of(*items, max_batch_size=16)
    assert queue.next_batch(0) == items[:4]
    assert queue.next_batch(0) == items[4:]
    assert queue_of(*items, max_batch_size=3).next_batch(0) == items[:3]


def test_a_call_may_be_bounded_below_the_largest_batch() -> None:
    items = [work(key="slow") for _ in range(5)]
    queue = queue_of(*items)
    most = {BatchKey("one", Op.SCORE, "slow"): 2.9}.__getitem__
    assert queue.next_batch(0, most_items=most) == items[:2]
    assert queue.next_batch(0) == items[2:]


# --- generations ---


def generate(cache_bytes: int = 0, key: Hashable = None) -> WorkItem:
    return work(Op.GENERATE, key, cache_bytes=cache_bytes)


def running(*generations: tuple[WorkItem, int]) -> dict[BatchKey, Rows]:
    """Running generations: of each, a row like this one, this many times."""
    return {one.key: Rows(number, one.item.cache_bytes) for one, number in generations}


def test_rows_join_a_running_generation_whatever_its_size() -> None:
    items = [generate() for _ in range(6)]
    queue = queue_of(*items)
    assert queue.next_batch(0, running((generate(), 64))) == items[:4]
    assert queue.next_batch(0, running((generate(), 68))) == items[4:]


def test_rows_join_as_long_as_there_is_memory_for_them() -> None:
    items = [generate(20) for _ in range(4)]
    queue = queue_of(*items)
    assert queue.next_batch(0, running((generate(20), 3))) == items[:2]
    assert queue.next_batch(0, running((generate(20), 5))) == []
    assert queue.next_batch(0, running((generate(20), 4))) == items[2:3]


def test_the_largest_row_decides_what_each_needs() -> None:
    assert queue_of(large := generate(30)).next_batch(0, running((generate(10), 3))) == []
    assert queue_of(large).next_batch(0, running((generate(10), 2))) == [large]


def test_all_generations_share_the_memory() -> None:
    other = generate(40, "other")
    assert queue_of(generate(30)).next_batch(0, running((other, 2))) == []
    assert queue_of(item := generate(20)).next_batch(0, running((other, 2))) == [item]


def test_a_row_larger_than_the_memory_runs_alone() -> None:
    huge, small = generate(1000), generate(1)
    queue = queue_of(huge, small)
    assert queue.next_batch(0, running((generate(1), 1))) == []
    assert queue.next_batch(0) == [huge]
    assert queue.next_batch(0, running((huge, 1))) == []
    assert queue.next_batch(0) == [small]


def test_nobody_younger_takes_the_memory_that_an_older_one_waits_for() -> None:
    """Else a stream of small rows could starve a large one."""
    large, small, other = generate(60), generate(1), generate(1, "other")
    queue = queue_of(large, small, other)
    assert queue.next_batch(0, running((generate(25), 2), (generate(1, "other"), 1))) == []
    assert queue.next_batch(0, running((generate(1, "other"), 1))) == [large]


def test_other_work_passes_rows_that_wait_for_memory() -> None:
    queue = queue_of(generate(60), short := work())
    assert queue.next_batch(0, running((generate(60), 1))) == [short]


def bounded(num_new_tokens: int = 10, features: Features | None = None) -> WorkItem:
    """A row of heads whose steps have enough at three images: of its own, unless it has `features`."""
    features = np.zeros(1) if features is None else features
    return work(Op.GENERATE, runner=BOUNDED, num_new_tokens=num_new_tokens, features=features)


def of_bounded(*num_tokens: float) -> dict[BatchKey, Rows]:
    """Rows of distinct images, each with so many tokens left."""
    return {bounded().key: Rows(len(num_tokens), 0, tuple((left, -place) for place, left in enumerate(num_tokens)))}


def test_a_step_that_has_enough_images_takes_no_more() -> None:
    items = [bounded() for _ in range(5)]
    queue = queue_of(*items, max_batch_size=16)
    assert queue.next_batch(0) == items[:3]
    assert queue.next_batch(0, of_bounded(9, 9, 9)) == []
    assert queue.next_batch(0, of_bounded(9, 9)) == items[3:4]


def test_but_a_row_waits_for_none_that_may_stay_longer() -> None:
    """However many of them there are."""
    items = [bounded() for _ in range(5)]
    queue = queue_of(*items, max_batch_size=16)
    assert queue.next_batch(0, of_bounded(10, 10, 10)) == []
    assert queue.next_batch(0, of_bounded(11, 11, 11, 11)) == items[:3]


def test_rows_of_an_image_count_once() -> None:
    image = np.zeros(1)
    first, second, other, more = bounded(features=image), bounded(features=image), bounded(), bounded()
    queue = queue_of(first, second, other, more)
    assert queue.next_batch(0, of_bounded(9)) == [first, second, other]
    running_now = {more.key: Rows(0, 0).joined_by(first.item)}
    known = queue_of(*[bounded(features=image) for _ in range(4)])
    assert len(known.next_batch(0, {more.key: of_bounded(9, 9, 9)[more.key].joined_by(first.item)})) == 4
    assert queue.next_batch(0, running_now) == [more]


def test_other_heads_pass_rows_that_wait_for_images_and_some_have_no_bound() -> None:
    assert queue_of(item := bounded()).next_batch(0, running((generate(), 64))) == [item]
    assert queue_of(free := generate()).next_batch(0, running((generate(), 64))) == [free]
    assert queue_of(bounded(), free := generate()).next_batch(0, of_bounded(9, 9, 9)) == [free]


def test_no_row_of_the_same_heads_overtakes_one_that_waits_for_images() -> None:
    long, short = bounded(200), bounded(2)
    queue = queue_of(long, short)
    assert queue.next_batch(0, of_bounded(20, 20, 20)) == []
    assert queue.next_batch(0, of_bounded(20)) == [long, short]


def test_parts_of_a_failed_generation_run_one_after_the_other() -> None:
    """Together they would need the memory that the whole did not get."""
    failed = [generate() for _ in range(4)]
    queue = queue_of(*failed)
    queue.next_batch(now=0)
    queue.put_back([failed[:2], failed[2:]])
    queue.append(other := generate())
    assert queue.next_batch(now=0) == failed[:2]
    assert queue.next_batch(0, running((failed[0], 2))) == [other]
    assert queue.next_batch(0, running((other, 1))) == failed[2:]


@pytest.mark.parametrize("num_keys", [1, 10_000])
def test_ten_thousand_waiting_items_are_each_taken_once(num_keys: int) -> None:
    items = [work(key=number % num_keys, deadline=1e9) for number in range(10_000)]
    queue = queue_of(*items, max_batch_size=16)
    taken = [item for _ in range(10_000) for item in queue.next_batch(now=0)]
    assert taken == items
