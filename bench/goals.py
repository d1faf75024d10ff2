"""The goals, and whether this run meets them. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.cells import Matrix, ratio
from bench.machine import OURS, shares
from bench.workloads import BEAMS, GREEDY

# Workload, contender, and the least multiple of its rate: with AVX-512 and VNNI, and without. (a) has one client; ours
# and (c) have 16.
RATES = (
    (GREEDY, "a", 4.0, 2.4),
    (GREEDY, "c", 1.4, 1.4),
    (BEAMS, "a", 7.0, 5.2),
    (BEAMS, "c", 1.6, 1.4),
    ("vqa, 5 questions", "a", 12.0, 12.0),
    ("vqa, 5 questions", "c", 3.0, 3.0),
    ("match, 1 x 16", "a", 12.0, 12.0),
    ("mix", "a", 6.0, 6.0),
)


@dataclass(frozen=True, slots=True)
class Goal:
    name: str
    figure: float
    limit: float
    most: bool = False  # the limit is an upper one, else a lower one

    @property
    def met(self) -> bool:
        return self.figure <= self.limit if self.most else self.figure >= self.limit

    def __str__(self) -> str:
        sign = "<=" if self.most else ">="
        return f"{self.name}: {self.figure:.3g} ({sign} {self.limit:g}) {'met' if self.met else 'MISSED'}"


def goals(results: dict[str, Any], matrix: Matrix) -> list[Goal]:
    """The goals whose figures were measured."""
    return [
        *rate_goals(matrix, results["is_wide"]),
        *alone_goals(matrix),
        *tower_goals(results.get("machine", [])),
        *arrival_goals(results.get("arrival")),
        *known_image_goals(results.get("known_image")),
        *cache_goals(results.get("cache")),
        *growth_goals(results.get("growth", [])),
        *answer_goals(results.get("answers", [])),
        *overhead_goals(results.get("overhead")),
    ]


def rate_goals(matrix: Matrix, is_wide: bool) -> Iterator[Goal]:
    for workload, other, wide_limit, narrow_limit in RATES:
        best = matrix.best_ours(workload)
        if best and (figure := matrix.to_a(best) if other == "a" else matrix.to_c(best)):
            limit = wide_limit if is_wide else narrow_limit
            yield Goal(f"{workload}, 16 clients, ours ({best.contender}) / ({other})", figure, limit)


def alone_goals(matrix: Matrix) -> Iterator[Goal]:
    """One client of ours against one of the wrapper in the same dtype: in fp32, and in half precision."""
    for ours, peer in (("d", "a"), ("e", "b")):
        for workload in dict.fromkeys(cell.workload for cell in matrix):
            if figure := ratio(matrix.rate(workload, ours, 1), matrix.rate(workload, peer, 1)):
                yield Goal(f"{workload}, one client, rate of ({ours}) / ({peer})", figure, 0.97)
        if figure := ratio(matrix.p50(BEAMS, ours), matrix.p50(BEAMS, peer)):
            yield Goal(f"{BEAMS}, one client, p50 of ({ours}) / ({peer})", figure, 0.55, most=True)


def tower_goals(machine: list[dict[str, Any]]) -> Iterator[Goal]:
    """In bf16; where that is emulated, in fp32."""
    measured = {row["dtype"]: shares(row) for row in machine if row["tower"] == OURS}
    dtype = "bf16" if measured.get("bf16") else "fp32"
    large = {batch: share for batch, share in measured.get(dtype, {}).items() if int(batch) >= 4}
    if large:
        best = max(large, key=lambda batch: large[batch])
        yield Goal(f"tower in {dtype}, batch {best}, share of the GEMM rate", large[best], 0.85)


def arrival_goals(arrival: dict[str, Any] | None) -> Iterator[Goal]:
    for beams, alone in (arrival or {}).get("alone", {}).items():
        loaded = statistics.median(arrival["loaded"][beams]) if arrival else 0.0
        yield Goal(
            f"10 tokens, {beams} beam(s), among 16 long generations / alone", loaded / statistics.median(alone), 3, True
        )


def known_image_goals(known: dict[str, Any] | None) -> Iterator[Goal]:
    """Of a short answer. A longer one's tokens take as long as the image."""
    if known:
        tokens = min(known, key=int)
        yield Goal(f"second question on a known image / the first, {tokens} tokens", second(known[tokens]), 0.25, True)


def second(seconds: dict[str, list[float]]) -> float:
    """The time of the second question over the first's."""
    return statistics.median(seconds["second"]) / statistics.median(seconds["first"])


def cache_goals(cache: dict[str, Any] | None) -> Iterator[Goal]:
    if cache and cache["scrapes"]:
        yield Goal("feature cache, most bytes / limit", cache["most_bytes"] / cache["limit_bytes"], 1, most=True)


def growth_goals(growth: list[dict[str, Any]]) -> Iterator[Goal]:
    """The lowest rate after the peak; the growth of memory from the first level that fills a batch to the last."""
    if growth:
        rates = [row["rate"] for row in growth]
        peak = rates.index(max(rates))
        yield Goal("growth, lowest rate after the peak / peak", min(rates[peak:]) / rates[peak], 0.9)
        middle, last = growth[len(growth) // 2], growth[-1]
        name = f"growth, memory at {last['clients']} clients / at {middle['clients']}"
        yield Goal(name, last["resident_bytes"] / middle["resident_bytes"], 1.1, most=True)


def overhead_goals(overhead: dict[str, Any] | None) -> Iterator[Goal]:
    rates = overhead["requests_per_second"] if overhead else {}
    for form in ("json", "multipart") if rates else ():
        pairs = zip(rates[f"ours/{form}"], rates[f"empty/{form}"], strict=True)
        figure = statistics.median(ours / empty for ours, empty in pairs)
        yield Goal(f"known image, {form}, requests per second of the service alone / an empty endpoint", figure, 0.6)


def answer_goals(answers: list[dict[str, Any]]) -> Iterator[Goal]:
    for row in answers:
        if "failure" in row:
            continue
        limit = 1.0 if row["dtype"] == "fp32" else 0.99
        yield Goal(f"demo at once, {row['dtype']}, texts equal to alone", row["equal"], limit)
        if row["dtype"] == "fp32":
            yield Goal("demo at once, fp32, largest difference of a score", row["largest_score_difference"], 1e-4, True)
