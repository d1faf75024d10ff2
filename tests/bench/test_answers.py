"""Answers at once against answers alone, and who takes part on which machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bench.contenders
from bench.answers import compare, requests
from bench.contenders import Contender, Stage, contenders


def test_equal_texts_and_near_scores_are_counted() -> None:
    one: list[dict[str, Any]] = [
        {"captions": [{"text": "a"}]},
        {"answers": [{"answer": "b"}]},
        {"scores": [[{"itm": 0.5, "itc": 0.25}]]},
    ]
    two: list[dict[str, Any]] = [
        {"captions": [{"text": "a"}]},
        {"answers": [{"answer": "c"}]},
        {"scores": [[{"itm": 0.5, "itc": 0.5}]]},
    ]
    assert compare(one, two) == {"texts": 2, "equal": 0.5, "largest_score_difference": 0.25}


def test_requests_are_mixed_and_seeded() -> None:
    made = requests(8)
    assert {request["url"] for request in made} == {"/caption", "/vqa", "/match"}
    assert made == requests(8)


def test_all_take_part_where_there_is_half_precision() -> None:
    chosen, left_out = contenders("bf16")
    assert ([contender.key for contender in chosen], left_out) == (list("abcdef"), {})


def test_emulated_half_precision_is_left_out_with_its_reason() -> None:
    chosen, left_out = contenders("fp32")
    assert [(contender.key, contender.dtype) for contender in chosen] == [
        ("a", "fp32"),
        ("c", "fp32"),
        ("d", "fp32"),
        ("f", "int8"),
    ]
    assert set(left_out) == {"b", "e"}


def test_a_quick_run_has_one_dtype_of_each_beside_int8() -> None:
    chosen, left_out = contenders("bf16", quick=True)
    assert ([contender.key for contender in chosen], set(left_out)) == (list("acef"), {"b", "d"})


def test_one_server_is_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[str] = []
    started: list[str] = []

    @contextmanager
    def serving(contender: Contender, _: Path) -> Iterator[Any]:
        there.append(contender.key)
        started.append("".join(there))
        yield SimpleNamespace(contender=contender, pid=len(started), start_seconds=1.0)
        there.remove(contender.key)

    monkeypatch.setattr(bench.contenders, "serving", serving)
    monkeypatch.setattr(bench.contenders, "peak_bytes", lambda pid: 10 - pid)
    a, c, *_ = contenders("fp32")[0]
    with Stage(Path()) as stage:
        for contender in (a, a, c, a):
            assert stage.server(contender).contender == contender
    assert (started, there) == (["a", "c", "a"], [])
    assert stage.start_seconds == {"a": [1.0, 1.0], "c": [1.0]}
    assert stage.peak_bytes == {"a": 9, "c": 8}
