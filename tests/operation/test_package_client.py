"""The light client: built from its folder, installed alone, and asking a running service as docs/clients.md does."""

from __future__ import annotations

import json
import re
import shutil
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from app import __version__
from bench.service import running_service
from tests.operation.conftest import Run

pytestmark = pytest.mark.timeout(600)  # an empty environment is filled
HEAVY = {"blip-serve", "fastapi", "numpy", "pillow", "torch", "transformers"}
SECTION = re.compile(r"^## The Python client\n(.*?)^## ", re.DOTALL | re.MULTILINE)
SNIPPET = re.compile(r"```python\n(.*?)```\n\n```console\n(.*?)```", re.DOTALL)


def test_it_is_light_and_asks_a_service(
    root: Path, tmp_path: Path, run: Run, figure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"  # setuptools works in the folder that it builds
    shutil.copytree(root / "blip_client", source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    run(sys.executable, "-m", "build", "--outdir", tmp_path, source)  # the wheel, from the sdist
    [wheel] = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {f"blip_client/{path.name}" for path in source.iterdir() if path.suffix in (".py", ".typed")}

    venv.create(tmp_path / "venv", with_pip=True)
    python = (tmp_path / "venv/bin/python", "-I")  # without the folder that it runs in, which is the project's
    pip = (*python, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "--constraint", root / "constraints.txt", wheel)
    installed = {one["name"]: one["version"] for one in json.loads(run(*pip, "list", "--format", "json"))}
    assert installed["blip-serve-client"] == __version__
    assert not HEAVY & installed.keys()

    [section] = SECTION.findall((root / "docs/clients.md").read_text())
    snippets = SNIPPET.findall(section)
    assert len(snippets) == section.count("```python") > 2
    with running_service(profile="demo") as service:
        monkeypatch.setenv("BLIP_URL", service.url)
        for snippet, printed in snippets:
            assert run(*python, "-c", snippet) == printed
    size = wheel.stat().st_size / 1e3
    figure(f"the client's wheel: {size:.0f} kB, in an environment of {len(installed)} packages: {', '.join(installed)}")
