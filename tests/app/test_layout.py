"""What the seams promise about the source itself; import-linter checks the rest."""

from __future__ import annotations

import re
from pathlib import Path

APP = Path(__file__).parents[2] / "app"


def test_no_route_task_or_engine_knows_a_family() -> None:
    """They read capabilities. The service's own name, in metrics and loggers, is no mention."""
    files = [APP / "tasks.py", *(APP / "routes").glob("*.py"), *(APP / "engine").glob("*.py")]
    assert len(files) > 10
    for file in files:
        source = re.sub(r"blip-serve|blip\.exchange|BLIP_[A-Z]+|blip_requests_total", "", file.read_text())
        assert not re.search(r"blip|q-?former|opt(?!ion|imi)|t5|flan", source, re.IGNORECASE), file
