"""What a client can send: all that comes of it is what /openapi.json says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.service import running_service
from tests.operation.conftest import Run

# Not what a schema says less of, or cannot say: that two fields go together (422), that a form has strings alone.
UNFIT = "positive_data_acceptance,negative_data_rejection"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("keys", ["", "a-key"], ids=["open", "with keys"])
def test_nothing_happens_that_is_not_documented(
    keys: str, run: Run, figure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of requests made from the schema: statuses, media types, headers and bodies of answers are as told,
    none is 5xx, other methods are refused, JSON that breaks the schema is refused, and so are guessed keys."""
    monkeypatch.setenv("SCHEMATHESIS_HOOKS", "tests.operation.documentation_hooks")
    options = ["--checks", "all", "--exclude-checks", UNFIT, "--phases", "examples,coverage,fuzzing", "--no-color"]
    with running_service(api_keys=keys) as service:
        told = run(
            "schemathesis",
            "run",
            f"{service.url}/openapi.json",
            *options,
            "--max-examples",
            "100",
            "--request-timeout",
            "60",
            "--suppress-health-check",
            "too_slow",  # to make cases, on a machine that has other work
        )
    [cases] = [line.strip() for line in told.splitlines() if "generated" in line]
    figure(f"schemathesis{' with keys' if keys else ''}: {cases}, nothing undocumented")
