"""What a person sees while a run goes on, on stderr: numbers and what is passed over."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

from tqdm import tqdm


@dataclass(slots=True)
class Progress:
    """A bar, on a terminal alone, and one line at the end."""

    quiet: bool
    num_written: int = 0
    num_failed: int = 0
    num_unsure: int = 0  # below --min-confidence
    num_skipped: int = 0  # done by an earlier run
    _bar: tqdm | None = None
    _began: float = field(default_factory=time.monotonic)

    def begin(self, num_pictures: int, num_skipped: int) -> None:
        """Once the service is there: its start counts in no rate."""
        self.num_skipped = num_skipped
        self._began = time.monotonic()
        shown = sys.stderr.isatty() and not self.quiet
        self._bar = tqdm(total=num_pictures, initial=num_skipped, unit="img", disable=not shown, file=sys.stderr)

    def advance(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix(failed=self.num_failed, skipped=self.num_skipped, refresh=False)
            self._bar.update()

    def tell(self, line: str) -> None:
        tqdm.write(f"blip-serve: {line}", file=sys.stderr)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def line(self, failures: str) -> str:
        seconds = time.monotonic() - self._began
        rate = self.num_written / seconds if seconds else 0.0
        told = [f"{self.num_written} written", f"{self.num_failed} failed"]
        told += [f"{self.num_unsure} not sure enough"] * bool(self.num_unsure)
        told += [f"{self.num_skipped} skipped, as they were done"] * bool(self.num_skipped)
        listed = f"; see {failures}" if self.num_failed or self.num_unsure else ""
        return f"{', '.join(told)}; {seconds:.1f} s, {rate:.1f} img/s{listed}"
