"""What is deployed agrees with the service: times, metrics, alerts. What takes tools to prove is in tests/operation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from app.main import create_app
from app.service import Service
from app.settings import Settings
from tests.deployment import assert_time_to_drain, settings_of


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def test_a_pod_is_given_the_time_to_drain(root: Path) -> None:
    literals = read(root / "k8s/base/kustomization.yaml")["configMapGenerator"][0]["literals"]
    pod = read(root / "k8s/base/deployment.yaml")["spec"]["template"]["spec"]
    assert_time_to_drain(pod, settings_of(dict(line.split("=") for line in literals)))


def test_compose_waits_for_health_and_stops_after_the_drain(root: Path) -> None:
    compose = read(root / "docker-compose.yml")
    services = compose["services"]
    assert int(services["blip-serve"]["stop_grace_period"].removesuffix("s")) > Settings().drain_seconds
    assert services["prometheus"]["depends_on"] == {"blip-serve": {"condition": "service_healthy"}}
    for name in ("prometheus", "grafana"):
        for volume in services[name]["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (root / source).is_file()


def test_every_metric_is_drawn(root: Path) -> None:
    dashboard = json.loads((root / "monitoring/grafana/blip-serve.json").read_text())
    drawn = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        for name in re.findall(r"\bblip_\w+", target["expr"])
    }
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum"), "gauge": ("",)}
    service: Service = create_app(Settings(threads=1)).state.service
    ours = [one for one in service.metrics.registry.collect() if one.name.startswith("blip_")]
    assert len(ours) >= 10
    missing = [one.name for one in ours if not {one.name + ending for ending in endings[one.type]} & drawn]
    assert missing == []


def test_every_alert_is_tested_and_has_its_line_in_the_runbook(root: Path) -> None:
    rules = read(root / "monitoring/rules.yml")["groups"][0]["rules"]
    tests = read(root / "monitoring/rules_test.yml")["tests"]
    tested = {one["alertname"] for test in tests for one in test["alert_rule_test"]}
    headings = re.findall(r"^#+ (\w+)$", (root / "docs/operations.md").read_text(), re.MULTILINE)
    assert {rule["alert"] for rule in rules} == tested
    for rule in rules:
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (page, anchor) == ("docs/operations.md", rule["alert"].lower())
        assert rule["alert"] in headings
