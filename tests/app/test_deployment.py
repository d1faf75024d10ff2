"""What is deployed agrees with the service: times, metrics, alerts. What takes tools to prove is in tests/operation."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def test_compose_gives_the_token_to_who_fetches_alone(root: Path) -> None:
    services = read(root / "docker-compose.yml")["services"]
    serve, fetch = services["blip-serve"], services["fetch"]
    assert [name for name, one in services.items() if "HF_TOKEN" in one.get("environment", {})] == ["fetch"]
    assert (fetch["command"], fetch["profiles"], fetch["volumes"]) == (["fetch"], ["fetch"], ["weights:/cache"])
    assert (serve["environment"]["HF_HUB_OFFLINE"], serve["volumes"]) == ("1", ["weights:/cache:ro"])
    assert fetch["image"] == serve["image"]


def test_grafana_has_no_default_password(root: Path) -> None:
    password = read(root / "docker-compose.yml")["services"]["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"]
    assert re.fullmatch(r"\$\{GRAFANA_PASSWORD:\?.+\}", password)


# --- what the image is made of ---


def pins(path: Path) -> dict[str, str]:
    """Version by name."""
    found = re.findall(r"^([\w.-]+)==([^\s;\\]+)", path.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def needs(requirements: Iterable[str], extra: str = "") -> set[str]:
    """Their names, of those that are needed here."""
    parsed = [Requirement(one) for one in requirements]
    return {canonicalize_name(one.name) for one in parsed if not one.marker or one.marker.evaluate({"extra": extra})}


def test_the_hashes_are_of_the_pinned_versions(root: Path) -> None:
    locked, constraints = pins(root / "requirements.lock"), pins(root / "constraints.txt")
    assert {name: constraints.get(name) for name in locked} == locked
    text = (root / "requirements.lock").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    entries = re.split(r"\n(?! )", "\n".join(lines))
    assert len(entries) == len(locked)
    for entry in entries:
        assert re.fullmatch(r"\S+==\S+( ; [^\\]+)? (\\\n    --hash=sha256:[0-9a-f]{64} ?)+", entry + " "), entry


def test_all_that_the_service_needs_has_hashes_but_torch(root: Path) -> None:
    """And torch's own needs too; those for CUDA come with it."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = needs(
        [*project["dependencies"], *project["optional-dependencies"]["otel"], *project["optional-dependencies"]["heif"]]
    )
    locked = pins(root / "requirements.lock")
    assert "torch" not in locked
    seen: set[str] = set()
    while wanted:
        seen |= wanted
        wanted = {each for name in wanted for each in needs(requires(name) or ()) if not is_for_cuda(each)} - seen
    assert seen == {*locked, "torch"}


def is_for_cuda(name: str) -> bool:
    return name.startswith(("nvidia-", "cuda-")) or name == "triton"


def test_each_stage_begins_with_the_base_that_can_be_pinned(root: Path) -> None:
    source = (root / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+) AS (\S+)", source, re.MULTILINE)
    names = {name for _, name in stages}
    assert {base for base, _ in stages} - names == {"${PYTHON_IMAGE}"}
    assert len(stages) == len(re.findall("^FROM", source, re.MULTILINE))
    installs = re.findall(r"pip install (.*)", source)
    assert [("--require-hashes" in one, "--requirement torch.txt" in one) for one in installs] == [
        (True, False),
        (False, True),
        (False, True),
    ]
    ignored = (root / ".dockerignore").read_text().splitlines()
    assert {"!requirements.lock", "!constraints.txt"} <= set(ignored)


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
