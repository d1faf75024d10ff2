"""The tables, in Markdown. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bench.cells import Matrix, ratio
from bench.goals import goals, second
from bench.machine import BATCHES, OURS, image_seconds, shares
from bench.workloads import NUM_TOKENS


def render(results: dict[str, Any], matrix: Matrix) -> str:
    sections = [
        header(results),
        contender_section(results),
        *workload_sections(results, matrix),
        machine_section(results),
        *own_sections(results),
        goal_section(results, matrix),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], num_words: int = 1) -> str:
    """The first columns are words, the others numbers."""
    lines = [heads, ["---" if place < num_words else "---:" for place, _ in enumerate(heads)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """With this many significant digits, without an exponent."""
    if value is None:
        return ""
    if value == 0 or not 1e-3 <= abs(value) < 1e6:
        return f"{value:.{digits}g}"
    whole = len(str(int(abs(value))))
    return f"{value:.{max(0, digits - whole if abs(value) >= 1 else digits)}f}"


def header(results: dict[str, Any]) -> str:
    what = "BLIP-base sizes, random weights, 384 pixels, distinct 1600 x 1200 JPEGs over HTTP on loopback"
    lines = [
        "# Results of `make bench`" + (" QUICK=1" if results["quick"] else ""),
        f"{what}; {NUM_TOKENS} tokens a caption or answer. {results['about']}. {results['minutes']:.0f} minutes.",
    ]
    if not results["ended"]:
        lines.append("**The run did not come to its end: this is what it had.**")
    if results.get("skipped"):
        lines.append(f"Left out of a quick run: {', '.join(results['skipped'])}.")
    return "\n\n".join(lines)


def contender_section(results: dict[str, Any]) -> str:
    rows = [
        [
            f"({row['key']})",
            row["name"],
            number(row["start_seconds"]),
            number(row["weight_bytes"] and row["weight_bytes"] / 1e6, 4),
            number(row["peak_bytes"] / 1e6, 4),
        ]
        for row in results["contenders"]
    ]
    notes = "".join(f"\n* ({key}) is left out: {reason}" for key, reason in results["left_out"].items())
    heads = ("", "contender", "start s", "weights MB", "peak RSS MB (its processes' sum)")
    return f"## Contenders\n\n{table(heads, rows, 2)}\n{notes}".rstrip()


def workload_sections(results: dict[str, Any], matrix: Matrix) -> Iterator[str]:
    for workload, unit in results["units"].items():
        rows, notes = [], ""
        for cell in sorted((cell for cell in matrix if cell.workload == workload), key=lambda cell: cell.key[1:]):
            name = f"({cell.contender})"
            if cell.failure or not cell.seconds:
                notes += f"\n* {name}, {cell.clients} clients, failed: {cell.failure or 'nothing was done in its time'}"
                continue
            figures = cell.rate, cell.p50, cell.p99, matrix.to_a(cell), matrix.to_c(cell)
            rows.append([name, str(cell.clients), str(len(cell.seconds)), *(number(figure) for figure in figures)])
        if rows or notes:
            heads = ("contender", "clients", "samples", unit, "p50 s", "p99 s", "x (a)", "x (c)")
            yield f"## {workload.capitalize()}\n\n{table(heads, rows)}\n{notes}".rstrip()


def machine_section(results: dict[str, Any]) -> str:
    """Our tower and those of other runtimes, and what they come to of the machine's rate."""
    machine = results.get("machine", [])
    fastest = {row["dtype"]: best_seconds(row) for row in machine if row["tower"] == OURS}
    rows = []
    for row in machine:
        seconds, best, ours = image_seconds(row), best_seconds(row), fastest.get(row["dtype"])
        share = max(shares(row).values(), default=None)
        gemm = [rate for rates in row.get("gemm", {}).values() for rate in rates]
        rows.append(
            [
                row["dtype"],
                row["tower"],
                *(number(seconds.get(str(batch))) for batch in BATCHES),
                number(ratio(ours, best)),
                number(statistics.median(gemm) / 1e9 if gemm else None),
                "" if share is None else f"{share:.0%}",
                row["note"],
            ]
        )
    batches = (f"batch {batch}, s an image" for batch in BATCHES)
    last = ("GEMM GFLOP/s (2048 cubed)", "share of it", "note")
    what = "Each alone in memory, with as many threads as the service; ratio and share are those of the best batch."
    heads = ("dtype", "tower", *batches, "time of ours / its", *last)
    return f"## The tower, and the machine's limit\n\n{what}\n\n{table(heads, rows, 2)}" if rows else ""


def best_seconds(row: dict[str, Any]) -> float | None:
    return min(image_seconds(row).values(), default=None)


def own_sections(results: dict[str, Any]) -> Iterator[str]:
    by = f" ({results.get('best', '')})"
    if arrival := results.get("arrival"):
        rows = [
            [
                beams,
                str(len(alone)),
                number(statistics.median(alone)),
                number(statistics.median(arrival["loaded"][beams])),
            ]
            for beams, alone in arrival["alone"].items()
        ]
        heads = ("beams", "samples", "alone, p50 s", "among 16 long ones, p50 s")
        yield f"## A 10-token answer among sixteen of 200 tokens{by}\n\n{table(heads, rows)}"
    if known := results.get("known_image"):
        rows = [
            [
                tokens,
                str(len(seconds["second"])),
                *(number(statistics.median(values)) for values in seconds.values()),
                number(second(seconds)),
            ]
            for tokens, seconds in known.items()
        ]
        columns = ("tokens an answer", "samples", "first question, p50 s", "second, p50 s", "second / first")
        yield f"## Two questions on one image, 3 beams{by}\n\n{table(columns, rows)}"
    if growth := results.get("growth"):
        rows = [
            [
                str(row["clients"]),
                str(row["requests"]),
                number(row["rate"]),
                number(row["p50"]),
                number(row["resident_bytes"] / 1e6, 4),
            ]
            for row in growth
        ]
        yield f"## Growth{by}\n\n{table(('clients', 'requests', 'captions/s', 'p50 s', 'RSS MB'), rows)}"
    if answers := results.get("answers"):
        rows = [
            [row["dtype"], row["failure"], "", "", ""]
            if "failure" in row
            else [
                row["dtype"],
                str(row["texts"]),
                f"{row['equal']:.1%}",
                number(row["largest_score_difference"]),
                "" if row["equal_to_fp32"] is None else f"{row['equal_to_fp32']:.1%}",
            ]
            for row in answers
        ]
        columns = ("dtype", "texts", "equal to alone", "largest difference of a score", "equal to fp32's alone")
        yield f"## The demo model, all at once\n\n{table(columns, rows)}"
    if overhead := results.get("overhead"):
        first, *rows = [[str(cell) for cell in row] for row in overhead["rows"]]
        yield f"## The service's overhead\n\n{table(first, rows)}"
    for section, failure in results.get("failures", {}).items():
        yield f"## {section[0].upper()}{section[1:].replace('_', ' ')}\n\nfailed: {failure}"


def goal_section(results: dict[str, Any], matrix: Matrix) -> str:
    lines = "\n".join(f"* {goal}" for goal in goals(results, matrix))
    return f"## Goals\n\n{lines}" if lines else ""
