from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def root(pytestconfig: pytest.Config) -> Path:
    """The project's folder."""
    return pytestconfig.rootpath
