"""What `make prove-gpu` needs of a Python: `python -m bench.gpu.needs` names what it lacks, and then ends with 1.
`python -m bench.gpu.needs FOLDER VERSION` fetches wheels of what is small, for a machine that has torch and
transformers but no network. Imports nothing but the standard library."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ("pytest", "pytest-timeout")
# With these come gigabytes, or what must fit them; and decoders, which see no PYTHONPATH, import two of them.
THERE = ("torch", "transformers", "numpy", "huggingface-hub", "safetensors", "pillow")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def needed() -> list[str]:
    """The service's own dependencies, and the tests'."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*(re.split(r"[ ;<>=\[]", one)[0] for one in project["dependencies"]), *TESTS]


def is_here(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def fetch(folder: str, version: str) -> int:
    small = [package for package in needed() if package not in THERE]
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
    command = [sys.executable, "-m", "pip", "download", "--only-binary=:all:", "--implementation=cp", *platforms]
    options = [f"--python-version={version}", "--constraint=constraints.txt", f"--dest={folder}"]
    return subprocess.run([*command, *options, *small], cwd=ROOT, check=False).returncode


def main() -> int:
    if len(sys.argv) == 3:
        return fetch(*sys.argv[1:])
    lacking = [package for package in needed() if not is_here(package)]
    if lacking:
        print(f"{sys.executable} has not all that this needs; it lacks {', '.join(lacking)}")
    return int(bool(lacking))


if __name__ == "__main__":
    sys.exit(main())
