"""Texts that tell of damaged weights are known as such, and counted."""

from __future__ import annotations

import pytest

from app.oddities import oddity


@pytest.mark.parametrize(
    ("text", "prompt", "kind"),
    [
        ("a red circle above a blue circle", "", None),
        ("red", "what color is it?", None),
        ("very very very good", "", None),
        ("", "", "empty"),
        ("  ", "what is it?", "empty"),
        ("What color is it? red", "what color is it?", "echo"),
        ("a cat cat cat cat", "", "repetition"),
        ("a cat and a cat and a cat and a cat and", "", "repetition"),
        ("it is in it is on it is at it is by", "", None),
    ],
)
def test_oddity(text: str, prompt: str, kind: str | None) -> None:
    assert oddity(text, prompt) == kind
