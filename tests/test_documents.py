"""README and docs: what they show of the program is what it prints, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.settings import Settings, variable
from app.start.commandline import make_parser
from app.start.variables import OF_OUR_TOOLS
from tests.documents import PAGES, PRINTED, ROOT, SETTINGS, renewed

IDS = [str(page.relative_to(ROOT)) for page in PAGES]
LINK = re.compile(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
BLOCK = re.compile(r"```.*?```", re.DOTALL)
NOT_OURS = {"BLIP_SERVE_PORT_8000_TCP_ADDR", "BLIP_PROT"}  # Kubernetes', and an example of a misspelt one


def anchors(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    for groups in LINK.findall(BLOCK.sub("", page.read_text())):
        target, _, anchor = "".join(groups).partition("#")
        if re.match(r"https?:", target):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_what_is_pasted_is_what_is_printed(page: Path) -> None:
    assert page.read_text() == renewed(page.read_text()), "python -m tests.documents writes it anew"


def test_settings_help_and_models_are_shown_at_all() -> None:
    text = (ROOT / "docs/cli.md").read_text()
    assert len(SETTINGS.findall(text)) == 1
    assert {command for command, _ in PRINTED.findall(text)} == {"--version", "models", "fetch --help"}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_flags_and_variables_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    known = {variable(name) for name in Settings.model_fields} | OF_OUR_TOOLS | NOT_OURS
    assert set(re.findall(r"\bBLIP_[A-Z0-9_]+\b", text)) <= known
    flags = make_parser().known_flags() | {"--prot"}
    for line in re.findall(r"^(?:\$ )?(?:\w+=\S+ )*(?:\.venv/bin/)?blip-serve (.*)$", text, re.MULTILINE):
        assert set(re.findall(r"(?<!\S)--[a-z-]+", line)) <= flags, line


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_no_path_of_a_machine_is_told(page: Path) -> None:
    assert not re.search(r"/(work|root|home|opt/wheels|tmp/[\w-])", page.read_text())


def test_the_readme_begins_with_what_a_newcomer_needs(root: Path) -> None:
    screen = "\n".join((root / "README.md").read_text().splitlines()[:40])
    for needed in ("make run", "make test", "example.png", "$ curl", "--profile blip-base", "docs/tasks.md"):
        assert needed in screen
