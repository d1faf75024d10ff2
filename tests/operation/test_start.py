"""Weights: fetched from a hub at their revisions, going on after an interruption; and starts that cannot succeed end
with one clear line and a code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.service import running_service
from models.base import Task
from models.catalog import read_catalog
from tests.operation.hub import Hub, serving_hub

LARGE_BYTES = 32 * 2**20  # the hub's client resumes at multiples of 10 MiB
DEMO = Path("models/checkpoints/demo").resolve()


def start(*arguments: str, **environment: str | Path) -> tuple[int, str]:
    """Exit code, and the line for the operator."""
    values = {name: str(value) for name, value in environment.items()}
    done = subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        env=os.environ | {"BLIP_PORT": "0"} | values,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("blip-serve: ")]
    assert "Traceback" not in done.stderr
    assert len(lines) == (done.returncode != 0), done.stderr
    return done.returncode, "".join(lines)


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """It has the demo's weights under the names of blip-base's checkpoints, the first with a large file beside them."""
    (model,) = read_catalog(None).profile("blip-base").values()
    folders = {task: DEMO / task for task in model.checkpoints}
    folders[Task.CAPTION] = shutil.copytree(DEMO / Task.CAPTION, tmp_path_factory.mktemp("hub") / "caption")
    (folders[Task.CAPTION] / "large.safetensors").write_bytes(bytes(LARGE_BYTES))
    with serving_hub({entry.checkpoint: folders[task] for task, entry in model.checkpoints.items()}) as hub:
        yield hub


def test_a_profile_is_fetched_once_and_then_served_without_the_hub(
    hub: Hub, tmp_path: Path, figure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment: dict[str, str | Path] = {"HF_ENDPOINT": hub.url, "HF_HOME": tmp_path}
    hub.cut_at = LARGE_BYTES - 1
    assert start("fetch", "blip-base", **environment) == (0, "")
    fetched, resumed = len(hub.served), [one for one in hub.served if one[2]]
    assert len(resumed) == 1
    assert start("fetch", "blip-base", **environment) == (0, "")
    assert len(hub.served) == fetched
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with running_service(profile="blip-base"):
        pass
    figure(
        f"fetch: {fetched - 1} files, one cut off and resumed at byte {resumed[0][2]}; again: 0 files; served offline"
    )


def test_a_full_disk_is_one_line(hub: Hub, tmp_path: Path, figure: Callable[[str], None]) -> None:
    if os.geteuid():
        pytest.skip("a small disk needs root to be mounted")
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], check=True)
    try:
        code, line = start("fetch", "blip-base", HF_ENDPOINT=hub.url, HF_HOME=tmp_path)
    finally:
        subprocess.run(["/bin/umount", "--lazy", str(tmp_path)], check=True)
    figure(f"disk full: {code}, {line}")
    assert code == 1
    assert line.endswith("No space left on device")


def test_missing_weights_are_one_line(tmp_path: Path, figure: Callable[[str], None]) -> None:
    code, line = start(BLIP_PROFILE="blip-base", HF_HOME=tmp_path, HF_HUB_OFFLINE="1")
    figure(f"weights missing: {code}, {line}")
    assert code == 1
    assert "Salesforce/blip-image-captioning-base" in line


def test_an_unknown_profile_is_one_line(figure: Callable[[str], None]) -> None:
    code, line = start(BLIP_PROFILE="blip-huge")
    figure(f"bad profile: {code}, {line}")
    assert code == 1
    assert "blip-huge" in line


def test_a_wrong_setting_is_one_line(figure: Callable[[str], None]) -> None:
    code, line = start(BLIP_MAX_BATCH_SIZE="many")
    figure(f"bad setting: {code}, {line}")
    assert code == 2
    assert "BLIP_MAX_BATCH_SIZE" in line
