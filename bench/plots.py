"""The plots, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from bench.cells import Matrix

SIZE, DPI = (13, 6), 120


def plot_throughput(matrix: Matrix, names: dict[str, str], path: Path) -> None:
    """The ratio of each cell's rate to that of (a), by workload."""
    mpl.use("Agg")
    workloads = list(dict.fromkeys(cell.workload for cell in matrix))
    cells = sorted({(cell.contender, cell.clients) for cell in matrix})
    figure, axes = plt.subplots(figsize=SIZE)
    width = 0.85 / max(1, len(cells))
    for place, (contender, clients) in enumerate(cells):
        found = [cell for cell in matrix if (cell.contender, cell.clients) == (contender, clients)]
        bars = {cell.workload: matrix.to_a(cell) or 0.0 for cell in found}
        left = [index + place * width for index in range(len(workloads))]
        label = f"({contender}) {names.get(contender, '')}, {clients} client{'s' * (clients > 1)}"
        drawn = axes.bar(left, [bars.get(workload, 0.0) for workload in workloads], width, label=label)
        axes.bar_label(drawn, fmt="%.1f", fontsize=7, rotation=90, padding=2)
    axes.set_xticks([index + 0.4 for index in range(len(workloads))], workloads)
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.margins(y=0.15)
    axes.set_ylabel("rate, multiples of (a)'s")
    axes.legend(fontsize=8)
    _save(figure, path)


def plot_growth(growth: list[dict[str, Any]], path: Path) -> None:
    """Captions per second and memory over the number of clients."""
    mpl.use("Agg")
    clients = [row["clients"] for row in growth]
    figure, axes = plt.subplots(figsize=(8, 5))
    axes.plot(clients, [row["rate"] for row in growth], "o-", label="captions/s")
    axes.set_xscale("log", base=2)
    axes.set_xticks(clients, [str(count) for count in clients])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("clients")
    axes.set_ylabel("captions/s")
    memory = axes.twinx()
    memory.plot(clients, [row["resident_bytes"] / 1e9 for row in growth], "s--", color="tab:orange", label="RSS")
    memory.set_ylim(bottom=0)
    memory.set_ylabel("RSS, GB")
    figure.legend(loc="lower right", bbox_to_anchor=(0.88, 0.15))
    _save(figure, path)


def plot_window(
    sizes: Sequence[tuple[float, float]],
    answers: Sequence[float],
    places: Sequence[int],
    phase_seconds: float,
    seconds_each: float,
    path: Path,
) -> None:
    """The window of the bulk commands and the answers a second, over time, beside what a service could take that has so
    many places in each phase. `sizes`: (seconds, size); `answers`: seconds."""
    mpl.use("Agg")
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(8, 6), sharex=True)
    edges = [number * phase_seconds for number in range(len(places) + 1)]
    last = edges[-1]
    shown = [(when, size) for when, size in sizes if when <= last]
    upper.stairs(places, edges, baseline=None, color="grey", linestyle="--", label="places of the service")
    upper.plot([when for when, _ in shown], [size for _, size in shown], linewidth=1, label="window")
    upper.set_ylabel("requests at a time")
    capacity = [most / seconds_each for most in places]
    lower.stairs(capacity, edges, baseline=None, color="grey", linestyle="--", label="what the service could answer")
    seconds = range(int(last))
    rates = [sum(second <= when < second + 1 for when in answers) for second in seconds]
    lower.plot([second + 0.5 for second in seconds], rates, linewidth=1, label="answers")
    lower.set_ylabel("answers/s")
    lower.set_xlabel("seconds")
    for axes in (upper, lower):
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower right", fontsize=8)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
