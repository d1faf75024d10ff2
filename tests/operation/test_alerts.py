"""The alerts and the metrics, as Prometheus' own tool sees them."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx

from bench.service import running_service
from tests.operation.conftest import Run


def test_rules_are_well_formed_and_raise_what_they_should(run: Run, figure: Callable[[str], None]) -> None:
    checked = run("promtool", "check", "rules", "monitoring/rules.yml")
    tested = run("promtool", "test", "rules", "monitoring/rules_test.yml")
    assert "SUCCESS" in tested
    figure(f"promtool check rules: {checked.split('SUCCESS: ')[1].strip()}; promtool test rules: passed")


def test_the_metrics_are_well_named(run: Run, figure: Callable[[str], None]) -> None:
    with running_service(profile="demo") as service:
        text = httpx.get(f"{service.url}/metrics").text
    run("promtool", "check", "metrics", stdin=text)
    figure(f"promtool check metrics: {len(re.findall('^# TYPE', text, re.MULTILINE))} metrics, nothing to say")
