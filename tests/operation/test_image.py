"""The image: built, and run as its user. For another engine than Docker, set the commands IMAGE_BUILD, IMAGE_RUN and
IMAGE_SIZE (which prints bytes)."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from bench.service import RunningService, free_port, wait_until_ready
from tests.operation.support import EXAMPLE

TAG = "blip-serve:proof"
BUILD = shlex.split(os.environ.get("IMAGE_BUILD", f"docker build --tag {TAG} ."))
RUN = shlex.split(os.environ.get("IMAGE_RUN", f"docker run --rm --network host --read-only --tmpfs /tmp {TAG}"))
SIZE = shlex.split(os.environ.get("IMAGE_SIZE", f"docker image inspect --format {{{{.Size}}}} {TAG}"))
CONTEXT = (
    "app",
    "blip_client",
    "models",
    "Dockerfile",
    ".dockerignore",
    "pyproject.toml",
    "constraints.txt",
    "requirements.lock",
    "LICENSE",
)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the build context, so that a file in it can be changed."""
    folder = tmp_path_factory.mktemp("context")
    for name in CONTEXT:
        source = Path(name)
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    return folder


def build(context: Path) -> tuple[float, str]:
    """Seconds taken, and the output."""
    began = time.monotonic()
    done = subprocess.run([*BUILD, "--target", "cpu"], cwd=context, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return time.monotonic() - began, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(context: Path) -> float:
    return build(context)[0]


@pytest.fixture
def container() -> Iterator[tuple[str, float]]:
    """The URL of a running container, and the seconds until it was ready."""
    port = free_port()
    began = time.monotonic()
    command = ["env", f"BLIP_PORT={port}", "python", "-m", "app"] if "IMAGE_RUN" in os.environ else []
    options = [] if command else ["--env", f"BLIP_PORT={port}"]
    process = subprocess.Popen([*RUN[:-1], *options, *RUN[-1:], *command], start_new_session=True)
    service = RunningService(f"http://127.0.0.1:{port}", process)
    try:
        wait_until_ready(service, "/health/ready")
        yield service.url, time.monotonic() - began
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


@pytest.mark.timeout(3600)
def test_it_answers_in_the_image(built: float, container: tuple[str, float], figure: Callable[[str], None]) -> None:
    url, ready = container
    answer = httpx.post(f"{url}/caption", files={"image": EXAMPLE}, timeout=60).json()
    size = int(subprocess.run(SIZE, capture_output=True, text=True, check=True).stdout)
    figure(f"image cpu: {size / 1e6:.0f} MB, built in {built:.0f} s, ready {ready:.1f} s after its start: {answer}")
    assert answer["captions"][0]["text"] == "a blue circle to the left of a green rectangle"


@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("built")
def test_it_is_not_root_and_owns_nothing_but_the_cache() -> None:
    script = "id -u; touch /srv/blip-serve/x 2>/dev/null && echo writable; touch /cache/x && echo cache"
    command = [*RUN, "sh"] if "IMAGE_RUN" in os.environ else [*RUN[:-1], "--entrypoint", "sh", TAG]
    done = subprocess.run([*command, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["10001", "cache"]


@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("built")
def test_a_change_to_the_code_installs_nothing_again(context: Path, figure: Callable[[str], None]) -> None:
    with (context / "app" / "logs.py").open("a") as file:
        file.write("# changed\n")
    seconds, printed = build(context)
    figure(f"image after a change to the code: {seconds:.0f} s")
    assert "Using cache" in printed or "CACHED" in printed  # as Buildah and BuildKit say it
    assert "Collecting" not in printed  # as pip says it
