"""What the tests of manifests share: those of the files as they are written, and those of what is rendered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.settings import Settings


def settings_of(variables: Mapping[str, Any]) -> Settings:
    """As the service would read them."""
    return Settings(**{name.removeprefix("BLIP_").lower(): value for name, value in variables.items()})


def assert_time_to_drain(pod: Mapping[str, Any], settings: Settings) -> None:
    """Of a pod's specification: it hears that it is to go, drains, and ends, before it is killed."""
    (container,) = pod["containers"]
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= before + settings.drain_seconds + settings.farewell_seconds
    assert before >= container["readinessProbe"]["periodSeconds"]
