"""The package: built as a wheel and as an sdist, and each installed into an empty environment that serves from a folder
which has nothing of the project."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app import __version__
from bench.service import free_port, running
from tests.operation.support import EXAMPLE

pytestmark = pytest.mark.timeout(1800)  # an empty environment is filled: torch is large
KINDS = ("wheel", "sdist")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist of the project, and the wheel that is built from it, as `build` does both."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), "."]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


def test_both_have_the_code_and_the_demo_and_no_tests(built: dict[str, Path]) -> None:
    wheel = zipfile.ZipFile(built["wheel"]).namelist()
    with tarfile.open(built["sdist"]) as archive:
        sdist = [name.partition("/")[2] for name in archive.getnames()]
    for names in (wheel, sdist):
        assert {
            "app/__main__.py",
            "blip_client/py.typed",
            "models/catalog.toml",
            "models/checkpoints/demo/example.png",
        } <= set(names)
        assert {path.as_posix() for path in Path("app/page").rglob("*") if path.is_file()} <= set(names)
    assert {name.partition("/")[0] for name in wheel} == {
        "app",
        "blip_client",
        "models",
        f"blip_serve-{__version__}.dist-info",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_it_serves_from_another_folder(
    built: dict[str, Path], kind: str, tmp_path: Path, figure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / "bin"
    constraints = Path("constraints.txt").resolve()
    install = [programs / "pip", "--disable-pip-version-check", "install", "--constraint", constraints, built[kind]]
    done = subprocess.run(list(map(str, install)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    told = subprocess.run([str(programs / "blip-serve"), "--version"], capture_output=True, text=True, check=True)
    assert told.stdout == f"blip-serve {__version__}\n"
    port = free_port()
    with running([str(programs / "blip-serve"), "--port", str(port)], port, "/health/ready") as service:
        answer = httpx.post(f"{service.url}/caption", files={"image": EXAMPLE}, timeout=60).json()
        page = httpx.get(service.url, headers={"Accept": "text/html"})
        scripts = [httpx.get(f"{service.url}/{name}") for name in re.findall(r'"(ui/[^"]+)"', page.text)]
    figure(f"{kind}: {built[kind].stat().st_size / 1e6:.1f} MB, installed, served from another folder: {answer}")
    assert len(scripts) > 10
    assert {one.status_code for one in (page, *scripts)} == {200}
    assert answer["captions"][0]["text"] == "a blue circle to the left of a green rectangle"
