"""Answers at once against answers alone, and who takes part on which machine."""

from __future__ import annotations

from typing import Any

from bench.answers import compare, requests
from bench.contenders import contenders


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
