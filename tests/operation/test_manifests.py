"""What Kubernetes and Docker are given: rendered, validated against schemas, and checked for settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.settings import Settings
from tests.deployment import assert_time_to_drain, settings_of
from tests.operation.conftest import Run

OVERLAYS = ("cpu", "gpu", "keda")
KUBERNETES = "1.34"
Objects = dict[str, dict[str, Any]]


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def objects(overlay: str, run: Run) -> Objects:
    """By kind."""
    rendered = [one for one in yaml.safe_load_all(run("kustomize", "build", f"k8s/overlays/{overlay}")) if one]
    kinds = [one["kind"] for one in rendered]
    assert len(set(kinds)) == len(kinds)
    return dict(zip(kinds, rendered, strict=True))


def pod(objects: Objects) -> dict[str, Any]:
    spec: dict[str, Any] = objects["Deployment"]["spec"]["template"]["spec"]
    return spec


def settings(objects: Objects) -> Settings:
    return settings_of(objects["ConfigMap"]["data"])


def test_every_object_is_what_its_schema_says(overlay: str, objects: Objects, figure: Callable[[str], None]) -> None:
    known = [one for kind, one in objects.items() if kind != "ScaledObject"]
    for one in known:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    figure(f"k8s/overlays/{overlay}: {len(objects)} objects, {len(known)} valid for Kubernetes {KUBERNETES} (strict)")


def test_exactly_one_thing_scales_it(overlay: str, objects: Objects) -> None:
    scalers = objects.keys() & {"HorizontalPodAutoscaler", "ScaledObject"}
    assert scalers == {"ScaledObject" if overlay == "keda" else "HorizontalPodAutoscaler"}
    target = objects[scalers.pop()]["spec"]["scaleTargetRef"]["name"]
    assert target == objects["Deployment"]["metadata"]["name"]
    assert "replicas" not in objects["Deployment"]["spec"]  # applying it again would undo what the autoscaler did


def test_it_scales_on_metrics_that_the_adapter_gives(overlay: str, objects: Objects, root: Path) -> None:
    if overlay == "keda":
        pytest.skip("KEDA asks Prometheus itself")
    rules = yaml.safe_load((root / "k8s/prometheus-adapter/values.yaml").read_text())["rules"]["custom"]
    for metric in objects["HorizontalPodAutoscaler"]["spec"]["metrics"]:
        assert any(metric["pods"]["metric"]["name"] in rule["seriesQuery"] for rule in rules)


def test_the_pod_meets_the_restricted_standard(objects: Objects) -> None:
    spec = pod(objects)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec["automountServiceAccountToken"]
    for container in spec["initContainers"] + spec["containers"]:
        context = container["securityContext"]
        assert not context["allowPrivilegeEscalation"]
        assert context["readOnlyRootFilesystem"]
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_it_is_given_the_time_to_drain(objects: Objects) -> None:
    assert_time_to_drain(pod(objects), settings(objects))


def test_each_probe_has_its_own_ground(objects: Objects) -> None:
    (container,) = pod(objects)["containers"]
    startup, ready, live = (container[f"{name}Probe"] for name in ("startup", "readiness", "liveness"))
    assert (startup["httpGet"]["path"], ready["httpGet"]["path"]) == ("/health/ready", "/health/ready")
    assert live["httpGet"]["path"] == "/health/live"
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600
    assert ready["failureThreshold"] < live["failureThreshold"]


def test_weights_are_fetched_before_it_starts_and_not_by_it(objects: Objects) -> None:
    spec = pod(objects)
    (fetch,), (container,) = spec["initContainers"], spec["containers"]
    assert (fetch["args"], fetch["image"]) == (["fetch"], container["image"])
    assert {"name": "weights", "mountPath": "/cache"} in fetch["volumeMounts"]
    assert {"name": "weights", "mountPath": "/cache", "readOnly": True} in container["volumeMounts"]
    assert {"name": "HF_HUB_OFFLINE", "value": "1"} in container["env"]


def test_a_gpu_is_whole_and_none_is_spare(overlay: str, objects: Objects) -> None:
    (container,) = pod(objects)["containers"]
    rolling = objects["Deployment"]["spec"]["strategy"]["rollingUpdate"]
    if overlay == "gpu":
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert pod(objects)["tolerations"][0]["key"] == "nvidia.com/gpu"
        assert rolling == {"maxSurge": 0, "maxUnavailable": 1}
    else:
        assert rolling == {"maxSurge": 1, "maxUnavailable": 0}


def test_memory_covers_what_the_settings_allow(objects: Objects) -> None:
    (container,) = pod(objects)["containers"]
    gibibytes = int(container["resources"]["limits"]["memory"].removesuffix("Gi"))
    on_the_device = container["resources"]["limits"].get("nvidia.com/gpu")
    ours = settings(objects)
    bounded = ours.max_inflight_bytes + ours.feature_cache_bytes
    caches = 0 if on_the_device else 2 * ours.generation_cache_bytes
    assert gibibytes * 2**30 > bounded + caches + 1.9e9  # BLIP-base in bf16, or what a load passes through


def test_the_selectors_meet(objects: Objects) -> None:
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    assert objects["Service"]["spec"]["selector"].items() <= labels
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= labels


def test_the_dockerfile_has_no_faults(run: Run, figure: Callable[[str], None]) -> None:
    run("hadolint", "Dockerfile")
    figure("Dockerfile: hadolint has nothing to say")
