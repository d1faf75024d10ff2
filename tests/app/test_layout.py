"""The seams in the source itself: import rules hold, and each is seen to catch a breach."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from models.catalog import FamilyName

ROOT = Path(__file__).parents[2]
APP = ROOT / "app"
# The module that breaks a rule -> what it imports -> the contract that says no.
BREACHES = [
    ("models/base.py", "import app.settings", "models never imports app"),
    ("models/layers/vit.py", "import models.runners.unit", "models: from the seam up to the loader"),
    ("models/weights.py", "import models.families.blip.med", "models: from the seam up to the loader"),
    ("models/generation/search.py", "import models.families.family", "models: from the seam up to the loader"),
    ("models/families/blip2/opt.py", "import models.families.blip.med", "no family imports another"),
    ("models/families/library/clip.py", "import models.families.blip.med", "no family imports another"),
    ("models/framing.py", "import models.base", "models: from the seam up to the loader"),
    (
        "app/tasks.py",
        "import models.catalog",
        "of models app knows the seam; main the loader, listing the catalog",
    ),
    (
        "app/http/gate.py",
        "import models.layers.attention",
        "of models app knows the seam; main the loader, listing the catalog",
    ),
    (
        "app/server.py",
        "import models.loader",
        "of models app knows the seam; main the loader, listing the catalog",
    ),
    (
        "app/wire/forms.py",
        "import torch",
        "of models app knows the seam; main the loader, listing the catalog",
    ),
    ("app/service.py", "import app.http.gate", "app: from the settings up to the process"),
    ("app/engine/engine.py", "import app.wire.forms", "app: from the settings up to the process"),
    ("app/tasks.py", "import app.routes.ops", "app: from the settings up to the process"),
    ("app/tasks.py", "import app.capfilt", "app: from the settings up to the process"),
    ("app/images.py", "import app.decoding.look", "app: from the settings up to the process"),
    ("app/decoding/pool.py", "import torch", "of models app knows the seam; main the loader, listing the catalog"),
    ("app/decoding/picture.py", "import torch", "a decoder's process is small"),
    ("app/decoding/animation.py", "import asyncio", "a decoder's process is small"),
    ("app/images.py", "import app.problems", "a decoder's process is small"),
    ("app/inference.py", "import httpx", "one module asks other hosts"),
    ("app/urls/hosts.py", "import httpcore", "one module asks other hosts"),
    ("models/weights.py", "import requests", "one module asks other hosts"),
    ("app/urls/slots.py", "import app.wire.forms", "app: from the settings up to the process"),
    ("app/decoding/lanes.py", "import asyncio", "the policy of decoding is pure"),
    ("app/tasks.py", "import app.chat", "app: from the settings up to the process"),
    ("app/engine/batching.py", "import asyncio", "the policy of batching is pure"),
]


def lint(folder: Path) -> tuple[int, str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()"]
    done = subprocess.run([*command, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for name in ("app", "models"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("checkpoints", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_copy_keeps_every_rule(copy: Path) -> None:
    code, told = lint(copy)
    assert code == 0, told


@pytest.mark.parametrize(("file", "line", "contract"), BREACHES, ids=[f"{file}: {line}" for file, line, _ in BREACHES])
def test_a_breach_is_caught(copy: Path, file: str, line: str, contract: str) -> None:
    kept = (copy / file).read_text()
    (copy / file).write_text(f"{kept}\n{line}\n")
    try:
        code, told = lint(copy)
    finally:
        (copy / file).write_text(kept)
    assert code == 1
    assert re.search(rf"{re.escape(contract)}.* BROKEN", told), told


def test_no_route_task_or_engine_knows_a_family() -> None:
    """They read capabilities. The service's own name, in metrics and loggers, is no mention."""
    files = [APP / "tasks.py", *(APP / "routes").glob("*.py"), *(APP / "engine").glob("*.py")]
    assert len(files) > 10
    families = "|".join(get_args(FamilyName))
    for file in files:
        source = re.sub(r"blip-serve|blip\.exchange|BLIP_[A-Z]+|blip_requests_total", "", file.read_text())
        assert not re.search(r"blip|q-?former|opt(?!ion|imi)|t5|flan", source, re.IGNORECASE), file
        assert not re.search(rf"(?<!-)\b({families})\b(?!-)", source, re.IGNORECASE), file
