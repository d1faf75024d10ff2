"""Settings, and the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app import __main__
from app.settings import Settings, default_threads


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"BLIP_{name.upper()}", raising=False)


def test_defaults() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.profile) == ("127.0.0.1", 8000, "demo")
    assert (settings.max_body_bytes, settings.max_inflight_bytes, settings.feature_cache_bytes) == (
        20 * 2**20,
        512 * 2**20,
        256 * 2**20,
    )
    assert settings.api_keys == ()
    assert settings.threads >= 1


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"API_KEYS": "key-1, key-2,", "MAX_ITEMS": "3", "CATALOG": "", "DRAIN_SECONDS": "0.5"}.items():
        monkeypatch.setenv(f"BLIP_{name}", value)
    settings = Settings()
    assert [key.get_secret_value() for key in settings.api_keys] == ["key-1", "key-2"]
    assert (settings.max_items, settings.catalog, settings.drain_seconds) == (3, None, 0.5)
    assert "key-1" not in repr(settings)


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "values",
    [
        {"port": 70_000},
        {"dtype": "int4"},
        {"drain_seconds": 0},
        {"drain_seconds": float("inf")},
        {"request_timeout_seconds": 120},
        {"stuck_seconds": 60},
        {"max_items": 0},
        {"max_inflight_bytes": 1000},
        {"log_format": "xml"},
        {"unknown": 1},
    ],
)
def test_out_of_bounds(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**values)


@pytest.mark.parametrize(
    ("files", "threads"),
    [
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "99999999 100000\n"}, None),
        ({}, None),
    ],
)
def test_threads_from_the_quota(tmp_path: Path, files: dict[str, str], threads: int | None) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert default_threads(tmp_path) == (threads or default_threads(tmp_path / "nothing"))


def test_bad_value_stops_with_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["blip-serve"])
    monkeypatch.setenv("BLIP_PORT", "eight thousand")
    assert __main__.main() == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("blip-serve: BLIP_PORT: ")
    monkeypatch.setenv("BLIP_PORT", "1")
    monkeypatch.setenv("BLIP_STUCK_SECONDS", "1")
    assert __main__.main() == 2
    assert capsys.readouterr().err.startswith("blip-serve: BLIP_STUCK_SECONDS must be above")
