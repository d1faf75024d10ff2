"""`blip-serve fetch`: the weights of a profile, once, at their pinned revisions; or one line on what is wrong."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from app import __main__
from models import checkpoint
from models.catalog import read_catalog


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["blip-serve", "fetch", *arguments])
    return __main__.main()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str]]:
    """What is asked of the hub; it has everything."""
    asked: list[tuple[str, str]] = []

    def download(name: str, *, revision: str, allow_patterns: list[str]) -> str:
        assert "*.json" in allow_patterns
        asked.append((name, revision))
        folder = tmp_path / name / revision
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").touch()
        return str(folder)

    monkeypatch.setattr(checkpoint, "snapshot_download", download)
    return asked


def test_every_checkpoint_of_the_profile_is_fetched_at_its_revision(
    monkeypatch: pytest.MonkeyPatch, hub: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "blip2-opt") == 0
    (model,) = read_catalog(None).profile("blip2-opt").values()
    expected = {(entry.checkpoint, entry.revision) for entry in model.checkpoints.values()}
    assert set(hub) == expected
    assert len(hub) == len(expected)  # that which two tasks name, once
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" is in ")[0] for line in lines] == [f"{name}@{revision}" for name, revision in hub]


def test_the_profile_is_the_settings_where_none_is_given(
    monkeypatch: pytest.MonkeyPatch, hub: list[tuple[str, str]]
) -> None:
    monkeypatch.setenv("BLIP_PROFILE", "blip-base")
    assert run(monkeypatch) == 0
    assert [name for name, _ in hub] == [
        "Salesforce/blip-image-captioning-base",
        "Salesforce/blip-vqa-base",
        "Salesforce/blip-itm-base-coco",
    ]


def test_embedded_weights_need_no_hub(
    monkeypatch: pytest.MonkeyPatch, hub: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "demo") == 0
    assert hub == []
    assert capsys.readouterr().out == "demo needs nothing from the hub\n"


def test_an_unknown_profile_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "blip-huge") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("blip-serve: ")
    assert "blip-huge" in line


def test_a_snapshot_that_lacks_a_shard_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model-1.safetensors").touch()
    shards = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(shards))
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "not-asked-for.bin"}}')
    monkeypatch.setattr(checkpoint, "snapshot_download", lambda *_, **__: str(tmp_path))
    assert run(monkeypatch, "blip-base") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "model-2.safetensors is missing" in line


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "snapshot_download", full)
    assert run(monkeypatch, "blip-base") == 1
    assert capsys.readouterr().err.splitlines() == [
        "blip-serve: cannot load the checkpoint Salesforce/blip-image-captioning-base: "
        "[Errno 28] No space left on device"
    ]
