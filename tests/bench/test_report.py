"""From samples to the table, the goals and the plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.cells import Cell, Matrix, percentile
from bench.client import Turn
from bench.goals import Goal, goals
from bench.plots import plot_growth, plot_throughput
from bench.report import number, render, table

GREEDY = "caption, greedy"


def cell(contender: str, clients: int, *seconds: float, elapsed: float = 10.0, failure: str = "") -> Cell:
    return Cell(GREEDY, contender, clients, list(seconds), [len(seconds) / elapsed], failure)


MATRIX = Matrix([cell("a", 1, 1.0, 3.0), cell("c", 16, *[2.0] * 4), cell("d", 16, *[1.0] * 12), cell("d", 1, 1.0)])
RESULTS: dict[str, Any] = {
    "quick": True,
    "ended": True,
    "minutes": 41.7,
    "half": "fp32",
    "is_wide": False,
    "about": "a machine",
    "skipped": ["mix"],
    "units": {GREEDY: "captions/s"},
    "left_out": {"b": "no half precision"},
    "contenders": [{"key": "a", "name": "A", "start_seconds": 2.0, "weight_bytes": None, "peak_bytes": 3e9}],
    "machine": [
        {
            "dtype": "fp32",
            "tower": "ours",
            "note": "",
            "seconds": {"1": [1.1], "4": [0.55, 0.5, 0.6]},
            "gemm": {"1": [2e11], "4": [2.5e11, 2.5e11, 2.5e11]},
        },
        {"dtype": "fp32", "tower": "OpenVINO", "note": "", "seconds": {"4": [1.1]}, "gemm": {"4": [2e11]}},
        {"dtype": "fp32", "tower": "ONNX Runtime", "note": "lost", "seconds": {}, "gemm": {}},
        {"dtype": "bf16", "tower": "", "note": "emulated"},
    ],
    "arrival": {"alone": {"1": [1.0]}, "loaded": {"1": [4.0]}, "long_generations": 3},
    "known_image": {
        "3": {"first": [1.0], "second": [0.2]},
        "10": {"first": [1.0], "second": [0.6]},
    },
    "cache": {"most_bytes": 100, "limit_bytes": 100, "scrapes": 5},
    "growth": [
        {"clients": clients, "requests": 4, "rate": rate, "p50": 1.0, "resident_bytes": 4e9}
        for clients, rate in ((1, 1.0), (2, 2.0), (4, 1.5))
    ],
    "answers": [
        {"dtype": "fp32", "texts": 9, "equal": 1.0, "equal_to_fp32": 1.0, "largest_score_difference": 0.0},
        {"dtype": "int8", "failure": "not there"},
    ],
    "overhead": {
        "rows": [["request", "per second"], ["JSON", 900]],
        "requests_per_second": {"ours/json": [9], "empty/json": [10], "ours/multipart": [5], "empty/multipart": [10]},
    },
}


def test_the_rounds_of_a_cell_count_alike() -> None:
    found = cell("d", 1, 1.0, elapsed=1.0)
    found.add(Turn([3.0], 2.0, 5))
    found.add(Turn([], 0.0, 0))  # nothing was done in its time
    assert (found.rates, found.rate, found.p50) == ([1.0, 2.5], 1.75, 2.0)


def test_p99_needs_a_hundred_samples() -> None:
    assert cell("d", 1, *[1.0] * 99).p99 is None
    assert cell("d", 1, *range(1, 101)).p99 == 99


def test_percentile_is_the_nearest_rank() -> None:
    assert [percentile([3, 1, 2], share) for share in (0.01, 0.5, 1)] == [1, 2, 3]


def test_who_failed_has_no_figures() -> None:
    failed = cell("d", 1, 1.0, failure="ReadError")
    assert (failed.rate, failed.p50, failed.p99) == (None, None, None)


def test_ratios_are_to_a_alone_and_to_c_at_as_many_clients() -> None:
    best = MATRIX.best_ours(GREEDY)
    assert best
    assert [MATRIX.to_a(best), MATRIX.to_c(best)] == pytest.approx([6, 3])
    assert MATRIX.to_c(cell("d", 1, 1.0)) is None


@pytest.mark.parametrize(
    ("name", "met"),
    [
        ("caption, greedy, 16 clients, ours (d) / (a)", True),
        ("caption, greedy, one client, rate of (d) / (a)", False),
        ("tower in fp32, batch 4, share of the GEMM rate", False),
        ("10 tokens, 1 beam(s), among 16 long generations / alone", False),
        ("second question on a known image / the first, 3 tokens", True),
        ("feature cache, most bytes / limit", True),
        ("growth, lowest rate after the peak / peak", False),
        ("growth, memory at 4 clients / at 2", True),
        ("demo at once, fp32, texts equal to alone", True),
    ],
)
def test_goals(name: str, met: bool) -> None:
    assert {goal.name: goal.met for goal in goals(RESULTS, MATRIX)}[name] is met


def test_what_was_not_measured_is_no_goal() -> None:
    assert goals({"is_wide": True}, Matrix()) == []


@pytest.mark.parametrize(("is_wide", "limit"), [(True, 4.0), (False, 2.4)])
def test_what_is_wanted_of_int8_depends_on_the_machine(is_wide: bool, limit: float) -> None:
    (goal,) = (one for one in goals({"is_wide": is_wide}, MATRIX) if one.name.endswith("16 clients, ours (d) / (a)"))
    assert goal.limit == limit


def test_one_client_is_compared_with_the_wrapper_in_the_same_dtype() -> None:
    cells = [cell(key, 1, 1.0, elapsed=elapsed) for key, elapsed in (("a", 4.0), ("b", 2.0), ("d", 4.0), ("e", 2.5))]
    found = {goal.name: goal.figure for goal in goals({"is_wide": True}, Matrix(cells))}
    assert found == {f"{GREEDY}, one client, rate of (d) / (a)": 1.0, f"{GREEDY}, one client, rate of (e) / (b)": 0.8}


def test_a_goal_says_its_figure_and_limit() -> None:
    assert str(Goal("ratio", 0.6, 0.55, most=True)) == "ratio: 0.6 (<= 0.55) MISSED"


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.0, "0"), (1234.5, "1234"), (12.34, "12.3"), (0.1234, "0.123"), (1e-5, "1e-05")]
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_table_is_markdown() -> None:
    assert table(("a", "b"), [["1", "2"]]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"


def test_the_report_has_every_section() -> None:
    report = render(RESULTS, MATRIX)
    for part in (
        "Left out of a quick run: mix",
        "a machine. 42 minutes.",
        "(b) is left out",
        "| (d) | 16 | 12 | 1.20 |",
        "| fp32 | ours | 1.10 | 0.550 |  | 1.00 | 250 | 80% |  |",
        "| fp32 | OpenVINO |  | 1.10 |  | 0.500 | 200 | 50% |  |",
        "| fp32 | ONNX Runtime |  |  |  |  |  |  | lost |",
        "| bf16 |  |  |  |  |  |  |  | emulated |",
        "| 10 | 1 | 1.00 | 0.600 | 0.600 |",
        "## Goals",
        "900",
    ):
        assert part in report


def test_a_failed_cell_is_a_note() -> None:
    assert "(c), 1 clients, failed: ReadError" in render(RESULTS, Matrix([cell("c", 1, failure="ReadError")]))


def test_a_run_that_was_interrupted_says_so() -> None:
    assert "did not come to its end" in render(RESULTS | {"ended": False}, MATRIX)
    assert "did not come to its end" not in render(RESULTS, MATRIX)


def test_plots_are_written(tmp_path: Path) -> None:
    plot_throughput(MATRIX, {"a": "A"}, tmp_path / "throughput.png")
    plot_growth(RESULTS["growth"], tmp_path / "growth.png")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("throughput.png", "growth.png"))
