"""What fails, how a run ends, and what a person sees of it."""

from __future__ import annotations

import io
import os
import sqlite3
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.app.bulk.support import Bulk, Scripted, pictures, rows, tree
from tests.app.support import RED, png


def test_what_fails_is_listed(bulk: Bulk) -> None:
    pictures(Path("p"), ["a.png"])
    Path("p/broken.png").write_bytes(RED[:40])
    assert bulk("caption", "p") == 1
    (row,) = rows("failures.jsonl")
    assert (row["path"], row["status"], row["type"]) == ("p/broken.png", 422, "/errors/bad-image")
    assert row["error"]
    assert row["request_id"]
    assert "1 written, 1 failed; " in bulk.err
    assert bulk.err.endswith("; see failures.jsonl\n")
    Path("p/broken.png").write_bytes(RED)
    assert bulk("caption", "p") == 0
    assert not Path("failures.jsonl").exists()


def test_where_failures_are_listed(bulk: Bulk) -> None:
    Path("out").mkdir()
    Path("a.png").write_bytes(b"no picture")
    assert bulk("caption", "a.png", "-o", "out/out.jsonl") == 1
    assert tree() == {"a.png", "out/out.jsonl", "out/failures.jsonl"}
    assert bulk("caption", "a.png", "--failures", "here.jsonl") == 1
    assert rows("here.jsonl")[0]["status"] == 415
    assert bulk("caption", "a.png") == 1
    assert bulk.err.startswith("blip-serve: a.png: Not an image")


@pytest.mark.parametrize(
    "words", [("-o", "failures.jsonl"), ("-o", "out.jsonl", "--failures", "./out.jsonl"), ("--failures", "a.png")]
)
def test_failures_replace_nothing_that_is_named(bulk: Bulk, words: tuple[str, ...]) -> None:
    pictures(Path(), ["a.png"])
    for path in ("failures.jsonl", "out.jsonl"):
        Path(path).write_text('{"path": "b.png"}\n')
    before = {path: Path(path).read_bytes() for path in tree()}
    assert bulk("caption", "a.png", *words) == 2
    assert "is where failures are listed" in bulk.err
    assert {path: Path(path).read_bytes() for path in tree()} == before


def test_failures_to_a_pipe_or_a_device(bulk: Bulk) -> None:
    pictures(Path("p"), ["a.png"])
    Path("null").symlink_to("/dev/null")
    assert bulk("caption", "p", "--failures", "null") == 0
    assert Path("null").is_symlink()


def test_a_listed_file_that_is_not_there_fails_alone(bulk: Bulk) -> None:
    pictures(Path(), ["a.png"])
    bulk.stdin(b"none.png\na.png\n")
    assert bulk("caption", "-") == 1
    assert bulk.out == "a.png\na red picture\n"
    assert bulk.err == "blip-serve: none.png: No such file or directory\n"


def test_min_confidence(scripted: Scripted) -> None:
    pictures(Path("p"), ["a.png"])
    ask = ("caption", "p", "--url", "http://test", "--min-confidence")
    assert scripted(*ask, "0.6") == 0
    assert tree() == {"p/a.png", "failures.jsonl"}
    (row,) = rows("failures.jsonl")
    assert row["caption"] == "a picture"
    assert row["error"] == "the confidence 0.500 is below 0.6"
    assert "1 not sure enough" in scripted.err
    assert scripted(*ask, "0.5") == 0
    assert tree() == {"p/a.png", "p/a.txt"}


def test_fail_fast(bulk: Bulk) -> None:
    pictures(Path("p"), [f"{number:03}.png" for number in range(100)])
    for path in Path("p").iterdir():
        path.write_bytes(b"no picture")
    assert bulk("caption", "p", "--fail-fast") == 1
    assert 0 < len(rows("failures.jsonl")) < 50


def test_dry_run(bulk: Bulk) -> None:
    pictures(Path("p"), ["a.png", "b.png"])
    Path("p/b.txt").touch()
    assert bulk("caption", "p", "--dry-run") == 0
    assert (bulk.out, bulk.err) == ("p/a.png\n", "blip-serve: 1 to do, 1 done already\n")
    assert tree() == {"p/a.png", "p/b.png", "p/b.txt"}
    assert not bulk.settings  # nothing was started


@pytest.mark.parametrize("flag", ["-q", "--quiet"])
def test_quiet(bulk: Bulk, flag: str) -> None:
    pictures(Path("p"), ["a.png"])
    assert bulk("caption", "p", flag) == 0
    assert (bulk.out, bulk.err) == ("", "")


def test_no_resize(scripted: Scripted) -> None:
    Path("a.png").write_bytes(png("red", (300, 200)))
    for words, size in ((["--no-resize"], (300, 200)), ([], (250, 167))):
        scripted.limits = {"max_side": 250}
        assert scripted("caption", "a.png", "--url", "http://test", *words) == 0
        assert scripted.size_of(scripted.asked.pop()["images"][0]) == size


def test_settings_are_those_of_the_service_in_this_process(bulk: Bulk) -> None:
    pictures(Path(), ["a.png"])
    assert bulk("caption", "a.png", "--max-batch-size", "3", "--threads", "1") == 0
    assert (bulk.settings["max_batch_size"], bulk.settings["threads"]) == (3, 1)
    assert bulk("caption", "a.png", "--threads", "none") == 2
    assert bulk.err.startswith("blip-serve: --threads: ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["none.png"], "there is no none.png"),
        (["p/*.jpg"], "no picture matches p/*.jpg"),
        (["p", "-o", "out.doc"], "--output out.doc: --output-format says what it is to be"),
        (["p", "--output-format", "txt", "-o", "a"], "--output is not for txt"),
        (["p", "-o", "out.npz"], "caption does not write npz, but "),
        (["p/a.png", "--output-format", "imagefolder"], "imagefolder is for one folder"),
        (["p", "q", "-o", "p/metadata.jsonl", "--output-format", "imagefolder"], "q/b.png is not below "),
        (["p", "--caption-extension", "png"], "--caption-extension: .png is none"),
        (["p", "--concurrency", "0"], "--concurrency: at least 1"),
        (["p", "--retries", "-1"], "unknown option -1"),
        (["p", "--retries=-1"], "--retries: at least 0"),
        (["p", "--min-confidence", "2"], "--min-confidence: from 0 to 1"),
        (["p", "--url", "http://test", "--profile", "demo"], "--profile is for a service in this process"),
        (["p", "--url", "test"], "--url: test is no address"),
        (["p", "--json", "-o", "out.jsonl"], "--json is for the terminal"),
        (["p", "--model", "none"], "the service has no model none that has caption; there are fake"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_that_is_wrong(bulk: Bulk, words: list[str], told: str) -> None:
    pictures(Path("p"), ["a.png"])
    pictures(Path("q"), ["b.png"])
    try:
        code = bulk("caption", *words)
    except SystemExit as stop:
        code = int(stop.code or 0)
        bulk.read()
    assert code == 2
    assert bulk.err.splitlines()[-1].startswith(f"blip-serve: {told}")


def test_a_folder_without_pictures(bulk: Bulk) -> None:
    Path("p").mkdir()
    assert bulk("caption", "p") == 0
    assert bulk.err.startswith("blip-serve: 0 written, 0 failed")
    assert not bulk.settings


# --- what a person sees ---


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_alone(bulk: Bulk, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(Path("p"), ["a.png", "b.png", "c.png"])
    Path("p/a.txt").touch()
    Path("p/b.png").write_bytes(b"no picture")
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    assert bulk("caption", "p") == 1
    last = shown.getvalue().split("\r")[-1]
    assert "3/3" in last
    assert "img/s" in last
    assert "failed=1, skipped=1" in last
    shown.truncate(0)
    assert bulk("caption", "p", "-q") == 1
    assert shown.getvalue().strip("\0") == ""


def test_a_named_pipe_that_nobody_writes_to_holds_up_nobody(bulk: Bulk) -> None:
    pictures(Path(), ["a.png"])
    os.mkfifo("pipe.png")
    assert bulk("caption", "pipe.png", "a.png", "-o", "out.jsonl") == 1
    assert [row["path"] for row in rows("out.jsonl")] == ["a.png"]


def test_an_empty_file_fails_alone(bulk: Bulk) -> None:
    """Also if it is the first one: the service would take an empty image for a wrong option."""
    pictures(Path("p"), ["b.png"])
    Path("p/a.png").touch()
    assert bulk("caption", "p", "--concurrency", "1") == 1
    assert rows("failures.jsonl") == [{"path": "p/a.png", "error": "the file is empty"}]
    assert Path("p/b.txt").exists()


def test_a_list_that_ends_in_nul(bulk: Bulk) -> None:
    bulk.stdin(b"a.png\0b.png\0")
    assert bulk("caption", "-") == 2
    assert "has a NUL in it" in bulk.err


@pytest.mark.parametrize("path", ['"a\\u0000.png"', '"\\ud800.png"', '""'])
def test_a_manifest_with_a_path_of_no_file(bulk: Bulk, path: str) -> None:
    Path("m.jsonl").write_text(f'{{"path": {path}}}\n')
    assert bulk("capfilt", "m.jsonl") == 2
    assert bulk.err == "blip-serve: m.jsonl, line 1: no file can have this path\n"


def test_a_manifest_that_is_deeper_than_any_parser_goes(bulk: Bulk) -> None:
    Path("m.jsonl").write_text("[" * 100_000)
    assert bulk("capfilt", "m.jsonl") == 2
    assert "m.jsonl, line 1: not " in bulk.err


def test_a_wrong_text_is_its_pictures_own(bulk: Bulk) -> None:
    """Also if it is the first one's."""
    pictures(Path(), ["a.png", "b.png"])
    Path("m.jsonl").write_text('{"path": "a.png", "texts": [""]}\n{"path": "b.png", "texts": ["red"]}\n')
    assert bulk("capfilt", "m.jsonl", "-o", "out.jsonl") == 1
    assert [row["path"] for row in rows("out.jsonl")] == ["b.png"]
    assert rows("failures.jsonl")[0]["status"] == 422


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize("closed", [True, False])
def test_a_stdout_that_takes_nothing(
    bulk: Bulk, monkeypatch: pytest.MonkeyPatch, dry: tuple[str, ...], closed: bool
) -> None:
    pictures(Path(), ["a.png"])
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stdout", None if closed else SimpleNamespace(buffer=full))
        assert bulk("caption", "a.png", *dry) == 1
    told = "it is closed" if closed else "No space left on device"
    assert bulk.err.startswith(f"blip-serve: cannot write to stdout: {told}\n")


@pytest.mark.parametrize(
    ("key", "told"), [("ses\name", "the API key has characters"), ("s\u00e9same", "the API key has characters")]
)
def test_a_key_that_cannot_be_sent(bulk: Bulk, monkeypatch: pytest.MonkeyPatch, key: str, told: str) -> None:
    monkeypatch.setenv("BLIP_API_KEY", key)
    pictures(Path(), ["a.png"])
    assert bulk("caption", "a.png", "--url", "http://127.0.0.1:1") == 2
    assert told in bulk.err
    assert "same" not in bulk.err


@pytest.mark.parametrize("url", ["http://[::1", "http://user:sesame@[bad"])
def test_an_address_that_is_none(bulk: Bulk, url: str) -> None:
    pictures(Path(), ["a.png"])
    assert bulk("caption", "a.png", "--url", url) == 2
    assert bulk.err.startswith("blip-serve: --url: ")
    assert "sesame" not in bulk.err


def test_no_room_for_the_list(bulk: Bulk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("app.bulk.plan.Plan.add", full)
    pictures(Path(), ["a.png"])
    assert bulk("caption", "a.png") == 1
    assert "cannot keep the list of pictures: database or disk is full" in bulk.err


def test_a_folder_that_cannot_be_written_fails_alone(scripted: Scripted) -> None:
    pictures(Path("p"), ["a.png", "b.png"])
    Path("p/.a.txt.partial").mkdir()
    assert scripted("caption", "p", "--url", "http://test") == 1
    (row,) = rows("failures.jsonl")
    assert row == {"path": "p/a.png", "error": "its result cannot be written: Is a directory"}
    assert Path("p/b.txt").exists()


def test_a_full_disk_ends_the_run(scripted: Scripted) -> None:
    pictures(Path("p"), ["a.png", "b.png"])
    ask = ("caption", "p", "--url", "http://test", "--output-format", "jsonl", "--failures", "failures.jsonl")
    assert scripted(*ask, "-o", "/dev/full") == 1
    assert "No space left on device" in scripted.err
