"""The checkpoints of `make bench-blip2`, at a small size."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest

from bench import blip2_checkpoints
from bench.blip2_checkpoints import KINDS, write_blip2
from models.base import Task
from models.loader import load


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes of the golden checkpoints, in several files."""
    monkeypatch.setattr(blip2_checkpoints, "KINDS", {name: kind._replace(sizes={}) for name, kind in KINDS.items()})
    monkeypatch.setattr(blip2_checkpoints, "SHARD_BYTES", 10_000)


def test_they_load_with_one_tower(tmp_path: Path) -> None:
    catalog = write_blip2(tmp_path / "new")
    for profile in ("random-blip2", "random-blip2-int8"):
        (model,) = load(profile, catalog=catalog, device="cpu", dtype="bf16", threads=1)
        assert set(model.checkpoints) == {Task.CAPTION, Task.VQA, Task.MATCH, Task.EMBED, Task.CAPFILT}
        assert len({checkpoint.tower for checkpoint in model.checkpoints.values()}) == 1


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    write_blip2(tmp_path)
    times = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*/*.safetensors"))]
    write_blip2(tmp_path)
    assert times == [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*/*.safetensors"))]


def test_a_disk_without_room_is_said_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(20_000))
    with pytest.raises(OSError, match=r"needs 0\.0 GB, the disk has 0\.0 GB"):
        write_blip2(tmp_path)
    assert not list(tmp_path.glob("*/*.safetensors"))
