"""What README and docs show of the program itself. `python -m tests.documents` writes it anew."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from app.settings import Settings, variable
from app.start.commandline import NO_FLAG, default_of, flag_of

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SETTINGS = re.compile(r"(?<=<!-- settings -->\n\n).*?(?=\n\n<!-- /settings -->)", re.DOTALL)
# What needs no service, and is the same on every machine: pasted after its command, to the end of the block.
PRINTED = re.compile(
    r"(?<=^\$ \.venv/bin/blip-serve )((?:\w+ )?--help|--version|models)\n(.*?)(?=\n```)", re.DOTALL | re.MULTILINE
)
UNITS = {"seconds": "s", "bytes": "bytes", "pixels": "pixels", "side": "pixels", "chars": "characters"}


def renewed(page: str) -> str:
    page = SETTINGS.sub(lambda _: "\n".join(settings_table()), page)
    return PRINTED.sub(lambda found: f"{found[1]}\n{printed(*found[1].split())}", page)


def settings_table() -> Iterator[str]:
    yield "| flag | variable | default | unit | |"
    yield "|---|---|---|---|---|"
    for name, field in Settings.model_fields.items():
        no = "no-" if field.annotation is bool else ""
        flag = "" if name in NO_FLAG else f"`{flag_of(name)}`" + f", `--{no}{flag_of(name)[2:]}`" * bool(no)
        unit = UNITS.get(name.rpartition("_")[2], "")
        yield f"| {flag} | `{variable(name)}` | {default_of(field)} | {unit} | {field.description} |"


def printed(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "app", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.rstrip("\n")


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(renewed(path.read_text()))
