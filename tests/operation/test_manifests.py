"""What Kubernetes and Docker are given: rendered, validated against schemas, and checked for settings."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
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
JOB = "Job/blip-weights"
Objects = dict[str, dict[str, Any]]


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def objects(overlay: str, run: Run) -> Objects:
    """By kind; those that fetch the weights by kind and name."""
    return rendered(run, f"k8s/overlays/{overlay}")


def rendered(run: Run, folder: str) -> Objects:
    rendered = [one for one in yaml.safe_load_all(run("kustomize", "build", folder)) if one]
    names = [
        one["kind"] if one["metadata"]["name"].startswith("blip-serve") else f"{one['kind']}/{one['metadata']['name']}"
        for one in rendered
    ]
    assert len(set(names)) == len(names)
    return dict(zip(names, rendered, strict=True))


def pod(objects: Objects, of: str = "Deployment") -> dict[str, Any]:
    spec: dict[str, Any] = objects[of]["spec"]["template"]["spec"]
    return spec


def labels(objects: Objects, of: str = "Deployment") -> dict[str, str]:
    """Of its pods."""
    found: dict[str, str] = objects[of]["spec"]["template"]["metadata"]["labels"]
    return found


def secrets(container: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Variable, Secret, key. A whole Secret is an error."""
    assert not any("secretRef" in source for source in container["envFrom"])
    given = [(one["name"], one["valueFrom"]["secretKeyRef"]) for one in container["env"] if "valueFrom" in one]
    return {(name, reference["name"], reference["key"]) for name, reference in given}


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


@pytest.mark.parametrize("of", ["Deployment", JOB])
def test_each_pod_meets_the_restricted_standard(objects: Objects, of: str) -> None:
    spec = pod(objects, of)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec["automountServiceAccountToken"]
    for container in spec.get("initContainers", []) + spec["containers"]:
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


def test_weights_are_fetched_by_a_job_and_waited_for(objects: Objects) -> None:
    [fetch], [wait], [serve] = (
        pod(objects, JOB)["containers"],
        pod(objects)["initContainers"],
        pod(objects)["containers"],
    )
    assert (fetch["args"], fetch["image"], wait["image"]) == (["fetch"], serve["image"], serve["image"])
    assert fetch["envFrom"] == wait["envFrom"] == serve["envFrom"]  # the same profile
    assert "until python -m app fetch" in wait["command"][-1]
    assert {"name": "weights", "mountPath": "/cache"} in fetch["volumeMounts"]
    volumes = [{one["name"]: one for one in pod(objects, of)["volumes"]}["weights"] for of in ("Deployment", JOB)]
    assert volumes[0] == volumes[1]
    for container in (wait, serve):
        assert {"name": "weights", "mountPath": "/cache", "readOnly": True} in container["volumeMounts"]
        assert {"name": "HF_HUB_OFFLINE", "value": "1"} in container["env"]


def test_who_serves_has_neither_the_token_nor_a_way_to_the_hub(objects: Objects) -> None:
    assert secrets(pod(objects, JOB)["containers"][0]) == {("HF_TOKEN", "blip-weights", "HF_TOKEN")}
    assert secrets(pod(objects)["containers"][0]) == {("BLIP_API_KEYS", "blip-serve", "BLIP_API_KEYS")}
    assert secrets(pod(objects)["initContainers"][0]) == set()
    assert "HF_TOKEN" not in objects["ConfigMap"]["data"]
    serving, fetching = (objects[name]["spec"] for name in ("NetworkPolicy", "NetworkPolicy/blip-weights"))
    assert set(serving["policyTypes"]) == set(fetching["policyTypes"]) == {"Ingress", "Egress"}
    assert (serving["egress"], fetching.get("ingress")) == ([], None)
    assert {port["port"] for rule in fetching["egress"] for port in rule["ports"]} == {53, 443}


def test_images_by_url_are_let_out_to_the_public_internet_alone(overlay: str, root: Path, run: Run) -> None:
    folder = root / "build" / f"image-urls-{overlay}"
    folder.mkdir(parents=True, exist_ok=True)
    own = {"resources": [f"../../k8s/overlays/{overlay}"], "components": ["../../k8s/image-urls"]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(own))
    objects = rendered(run, str(folder))
    policy = objects["NetworkPolicy/blip-image-urls"]
    kubernetes_validate.validate(policy, KUBERNETES, strict=True)
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels(objects).items()
    assert not policy["spec"]["podSelector"]["matchLabels"].items() <= labels(objects, JOB).items()
    assert settings(objects).image_urls == "public"
    names, web = policy["spec"]["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    assert {port["port"] for port in web["ports"]} == {80, 443}
    blocks = [one["ipBlock"] for one in web["to"]]
    allowed = [ip_network(one["cidr"]) for one in blocks]
    refused = [ip_network(one) for block in blocks for one in block["except"]]
    for address in map(
        ip_address, ("169.254.169.254", "10.0.0.1", "172.20.0.1", "192.168.0.1", "100.64.0.1", "127.0.0.1")
    ):
        assert any(address in network for network in refused)
    for address in map(ip_address, ("::1", "fe80::1", "fd00:ec2::254", "::ffff:10.0.0.1")):
        assert not any(address in network for network in allowed)


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
    """The pods that they are for, and no others."""
    serving = [
        objects["Service"]["spec"]["selector"],
        objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    fetching = [objects["NetworkPolicy/blip-weights"]["spec"]["podSelector"]["matchLabels"]]
    for selectors, ours, others in ((serving, "Deployment", JOB), (fetching, JOB, "Deployment")):
        for selector in selectors:
            assert selector.items() <= labels(objects, ours).items()
            assert not selector.items() <= labels(objects, others).items()


def test_the_dockerfile_has_no_faults(run: Run, figure: Callable[[str], None]) -> None:
    run("hadolint", "Dockerfile")
    figure("Dockerfile: hadolint has nothing to say")
