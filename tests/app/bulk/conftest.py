from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from tests.app.bulk.support import Bulk, Scripted


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [one for one in os.environ if one.upper().startswith("BLIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # which the commands set


@pytest.fixture
def bulk(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Bulk:
    return Bulk(monkeypatch, capfdbinary)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Scripted:
    return Scripted(monkeypatch, capfdbinary)
