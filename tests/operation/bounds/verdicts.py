"""The table of figures that the campaign prints: what was measured, what it may be, and whether it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

MB = 2**20
LIVE_MS = 100  # /health/live takes so much at most, whatever goes on
GROWTH_MB = 150  # of the process, besides the bytes that were sent
ROW = "{:<5} {:<50} {:>16} {:>18} {:>4}"
HEADER = ROW.format("kind", "case", "figure", "limit", "met")


@dataclass(slots=True)
class Verdicts:
    """Of one test: all of its figures are written before it fails. `kind`: the number of what is bounded, as
    in docs/operations.md."""

    write: Callable[[str], None]
    broken: list[str] = field(default_factory=list)

    def at_most(self, kind: str, case: str, figure: float, limit: float, unit: str = "") -> None:
        self._add(kind, case, f"{figure:,.4g}{unit}", f"<= {limit:,.4g}{unit}", figure <= limit)

    def at_least(self, kind: str, case: str, figure: float, limit: float, unit: str = "") -> None:
        self._add(kind, case, f"{figure:,.4g}{unit}", f">= {limit:,.4g}{unit}", figure >= limit)

    def true(self, kind: str, case: str, figure: object, limit: str, met: bool) -> None:
        self._add(kind, case, f"{figure}", limit, met)

    def told(self, kind: str, case: str, figure: str) -> None:
        """Without a limit."""
        self.write(ROW.format(kind, case, figure, "", "").rstrip())

    def settle(self) -> None:
        """Fails with what was broken."""
        assert self.broken == []

    def _add(self, kind: str, case: str, figure: str, limit: str, met: bool) -> None:
        row = ROW.format(kind, case, figure, limit, "yes" if met else "NO")
        self.write(row)
        if not met:
            self.broken.append(" ".join(row.split()))
