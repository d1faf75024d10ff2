"""What is asked of every contender."""

from __future__ import annotations

from collections import Counter

from bench.client import litserve, ours, wrapper
from bench.pictures import Numbers
from bench.scale import FULL, QUICK, TINY
from bench.workloads import MIX, QUESTIONS, TEXTS, WORKLOADS, Work, mix


def test_every_ten_of_the_mix_have_its_shares() -> None:
    works = mix(30, Numbers())
    for first in range(0, 30, 10):
        assert Counter(work.task for work in works[first : first + 10]) == Counter(MIX)


def test_a_third_of_the_mix_is_about_a_picture_seen_before() -> None:
    seen: set[int | None] = set()
    again = 0
    for work in mix(30, Numbers()):
        again += work.picture in seen
        seen.add(work.picture)
    assert again == 10


def test_the_mix_is_the_same_every_time() -> None:
    assert mix(20, Numbers()) == mix(20, Numbers())


def test_no_two_cells_of_a_plan_share_a_picture() -> None:
    for scale in (FULL, QUICK, TINY):
        cells = [
            {w.picture for w in works} - {None} for many in scale.plan(Numbers()).values() for works in many.values()
        ]
        assert sum(map(len, cells)) == len(set().union(*cells))


def test_the_full_scale_has_samples_enough() -> None:
    for workload in WORKLOADS:
        assert FULL.samples(workload, 1) >= 12
        assert FULL.samples(workload, 16) >= 60


def test_many_clients_get_more_time_than_one() -> None:
    for workload in WORKLOADS:
        assert workload.weight(16) == 3 * workload.weight(1)


def test_clients_are_busy_while_anything_counts() -> None:
    for scale in (FULL, QUICK, TINY):
        for name, works in scale.plan(Numbers()).items():
            (workload,) = (workload for workload in WORKLOADS if workload.name == name)
            for clients, many in works.items():
                assert len(many) >= scale.samples_of_round(workload, clients) + 2 * clients


def test_a_round_of_samples_that_differ_has_some_of_all() -> None:
    (mixed,) = (workload for workload in WORKLOADS if workload.name == "mix")
    assert FULL.rounds(mixed, 1) == 2
    assert [FULL.samples_of_round(mixed, clients) for clients in (1, 16)] == [10, 60]
    assert TINY.samples_of_round(mixed, 1) == 1


def test_ours_gets_one_request_and_peers_one_for_each_text() -> None:
    pictures = [b"jpeg"]
    for work in (Work("vqa", 0, QUESTIONS), Work("match", 0, TEXTS)):
        (request,) = ours(work, pictures)
        assert list(work.texts) in request["data"].values()
        for peer in (wrapper, litserve):
            assert [request["json"]["text"] for request in peer(work, pictures)] == list(work.texts)


def test_without_a_picture_nothing_is_uploaded() -> None:
    work = Work("embed-text", texts=("picture",))
    assert ours(work, []) == [{"url": "/embed", "json": {"text": ["picture"]}}]
    for peer in (wrapper, litserve):
        assert "image" not in peer(work, [])[0]["json"]
