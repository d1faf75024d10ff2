"""Debian's Chromium, driven by playwright, whose own browsers are not needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.operation.conftest import tool


@contextmanager
def chromium(*options: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tool("chromium"), args=["--no-sandbox", *options])
        try:
            yield browser
        finally:
            browser.close()
