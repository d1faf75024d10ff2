"""The commands and each of their flags, over a model that knows colours."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.app.bulk.support import Bulk, Scripted, pictures
from tests.app.support import RED, png


def rows(path: str | Path) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def tree(folder: Path = Path()) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# --- which pictures, and what comes out ---


def test_one_file_gives_the_caption_alone(bulk: Bulk) -> None:
    pictures(Path(), ["a.png"])
    assert bulk("caption", "a.png") == 0
    assert (bulk.out, bulk.err) == ("a red picture\n", "")


def test_several_files_give_path_and_caption(bulk: Bulk) -> None:
    pictures(Path(), ["a.png"])
    pictures(Path(), ["b.png"], "blue")
    assert bulk("caption", "a.png", "b.png", "--concurrency", "1") == 0
    assert sorted(bulk.out.split("\n")[:-1:2]) == ["a.png", "b.png"]
    assert "b.png\na blue picture\n" in bulk.out


def test_options_may_stand_between_paths(bulk: Bulk) -> None:
    pictures(Path(), ["a.png", "b.png"])
    assert bulk("caption", "a.png", "--concurrency", "1", "b.png") == 0
    assert sorted(bulk.out.splitlines()[::2]) == ["a.png", "b.png"]


def test_json(bulk: Bulk) -> None:
    pictures(Path(), ["a.png"])
    assert bulk("caption", "a.png", "--json", "--num-captions", "2") == 0
    row = json.loads(bulk.out)
    assert (row["path"], row["caption"], row["model"]) == ("a.png", "a red picture", "fake")
    assert 0 < row["confidence"] <= 1
    assert len(row["alternatives"]) == 1


def test_a_folder_gets_its_texts(bulk: Bulk) -> None:
    pictures(Path("p"), ["a.png", "b.PNG", "sub/c.png", ".hidden.png", ".git/d.png"])
    Path("p/notes.md").write_text("no picture")
    assert bulk("caption", "p") == 0
    assert tree(Path("p")) - {"a.png", "b.PNG", "sub/c.png", ".hidden.png", ".git/d.png"} == {
        "a.txt",
        "b.txt",
        "notes.md",
    }
    assert Path("p/a.txt").read_bytes() == b"a red picture\n"
    assert bulk.err.startswith("blip-serve: 2 written, 0 failed; ")


@pytest.mark.parametrize("flag", ["-r", "--recursive"])
def test_recursive(bulk: Bulk, flag: str) -> None:
    pictures(Path("p"), ["a.png", "sub/deep/c.png"])
    assert bulk("caption", flag, "p") == 0
    assert Path("p/sub/deep/c.txt").exists()


def test_ext(bulk: Bulk) -> None:
    pictures(Path("p"), ["a.png", "b.jpg", "c.webp"])
    assert bulk("caption", "p", "--ext", ".PNG,webp") == 0
    assert tree(Path("p")) >= {"a.txt", "c.txt"}
    assert not Path("p/b.txt").exists()


def test_a_pattern_and_a_list_on_stdin(bulk: Bulk) -> None:
    pictures(Path("p"), ["a.png", "x/b.png", "x/y/c.png"])
    assert bulk("caption", "p/**/*.png", "--dry-run") == 0
    assert bulk.out.splitlines() == ["p/a.png", "p/x/b.png", "p/x/y/c.png"]
    bulk.stdin(b"p/x/b.png\r\n\np/a.png\n")
    assert bulk("caption", "-", "--dry-run") == 0
    assert bulk.out.splitlines() == ["p/a.png", "p/x/b.png"]


def test_a_picture_that_is_named_twice_is_asked_about_once(bulk: Bulk) -> None:
    pictures(Path("p"), ["a.png"])
    assert bulk("caption", "p", "p/a.png", "./p/../p/a.png", "--json") == 0
    assert len(bulk.out.splitlines()) == 1


def test_output_formats(bulk: Bulk) -> None:
    pictures(Path("p"), ["a.png", "b,\n.png"])
    assert bulk("caption", "p", "-o", "out.jsonl") == 0
    assert {row["path"]: row["caption"] for row in rows("out.jsonl")} == dict.fromkeys(
        ("p/a.png", "p/b,\n.png"), "a red picture"
    )
    assert bulk("caption", "p", "--output", "out.csv") == 0
    with Path("out.csv").open(newline="") as file:
        head, *table = csv.reader(file)
    assert head == ["path", "caption", "confidence"]
    assert {row[0] for row in table} == {"p/a.png", "p/b,\n.png"}
    assert bulk("caption", "p", "--output-format", "imagefolder") == 0
    assert {row["file_name"] for row in rows("p/metadata.jsonl")} == {"a.png", "b,\n.png"}
    assert set(rows("p/metadata.jsonl")[0]) == {"file_name", "text"}
    assert bulk("caption", "p", "--output-format", "csv") == 0
    assert bulk.out.startswith("path,caption,confidence\n")
    assert bulk("caption", "p", "--output-format", "terminal") == 0
    assert bulk.out.count("a red picture\n") == 2


def test_captions_extension_prefix_and_suffix(bulk: Bulk) -> None:
    pictures(Path("p"), ["a.png"])
    assert bulk("caption", "p", "--caption-extension", "caption", "--prefix", "sks, ", "--suffix", ", photo") == 0
    assert Path("p/a.caption").read_text() == "sks, a red picture, photo\n"


@pytest.mark.parametrize(
    ("existing", "text"),
    [
        ("skip", "mine"),
        ("overwrite", "a red picture\n"),
        ("append", "mine, a red picture\n"),
        ("prepend", "a red picture, mine\n"),
    ],
)
def test_existing(bulk: Bulk, existing: str, text: str) -> None:
    pictures(Path("p"), ["a.png"])
    Path("p/a.txt").write_text("mine")
    for _ in range(2):  # what was added is not added again
        assert bulk("caption", "p", "--existing", existing) == 0
        assert Path("p/a.txt").read_text() == text


def test_existing_records(bulk: Bulk) -> None:
    pictures(Path("p"), ["a.png", "b.png"])
    assert bulk("caption", "p/a.png", "-o", "out.jsonl") == 0
    first = rows("out.jsonl")
    assert bulk("caption", "p", "-o", "out.jsonl", "--prefix", "now ") == 0
    assert rows("out.jsonl")[0] == first[0]
    assert "1 skipped" in bulk.err
    assert bulk("caption", "p", "-o", "out.jsonl", "--prefix", "now ", "--existing", "overwrite") == 0
    assert [row["caption"] for row in rows("out.jsonl")] == ["now a red picture"] * 2
    assert bulk("caption", "p", "-o", "out.jsonl", "--existing", "append") == 2


def test_what_was_written_stays_if_the_options_are_wrong(bulk: Bulk) -> None:
    pictures(Path("p"), ["a.png"])
    assert bulk("caption", "p", "-o", "out.jsonl") == 0
    kept = Path("out.jsonl").read_bytes()
    assert bulk("caption", "p", "-o", "out.jsonl", "--existing", "overwrite", "--num-captions", "9") == 2
    assert bulk.err == "blip-serve: num_captions: Input should be less than or equal to 8\n"
    assert Path("out.jsonl").read_bytes() == kept


def test_keep_ext(bulk: Bulk) -> None:
    pictures(Path("p"), ["a.png", "a.jpg"])
    assert bulk("caption", "p") == 2
    assert bulk.err.startswith("blip-serve: p/a.jpg and p/a.png would both") or bulk.err.startswith(
        "blip-serve: p/a.png and p/a.jpg would both"
    )
    assert bulk("caption", "p", "--keep-ext") == 0
    assert tree(Path("p")) == {"a.png", "a.jpg", "a.png.txt", "a.jpg.txt"}


def test_question(bulk: Bulk) -> None:
    pictures(Path("p"), ["a.png"])
    assert bulk("caption", "p/a.png", "--question", "what color is it?") == 0
    assert bulk.out == "red\n"
    assert bulk("caption", "p/a.png", "--question", "what?", "--prompt", "a") == 2


# --- the request ---


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["--prompt", "a photo"], {"prompt": "a photo"}),
        (["--model", "other"], {"model": "other"}),
        (["--num-captions", "2"], {"num_captions": 2}),
        (["--num-beams", "4"], {"num_beams": 4}),
        (["--max-new-tokens", "7"], {"max_new_tokens": 7}),
        (["--min-new-tokens", "3"], {"min_new_tokens": 3}),
        (
            ["--sample", "--top-p", "0.5", "--temperature", "0.7", "--seed", "3"],
            {"sample": True, "top_p": 0.5, "temperature": 0.7, "seed": 3},
        ),
        ([], {}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_asked(scripted: Scripted, words: list[str], field: dict[str, Any]) -> None:
    pictures(Path("p"), ["a.png"])
    assert scripted("caption", "p", "--url", "http://test", *words) == 0
    (asked,) = scripted.asked
    del asked["images"]
    assert asked == field


# --- the other commands ---


def test_vqa(bulk: Bulk) -> None:
    pictures(Path("p"), ["a.png"])
    ask = ("vqa", "p/a.png", "--question", "what color is it?")
    assert bulk(*ask) == 0
    assert bulk.out == "red\n"
    assert bulk(*ask, "--question", "is it?", "--json", "--num-beams", "1") == 0
    assert [one["question"] for one in json.loads(bulk.out)["answers"]] == ["what color is it?", "is it?"]
    assert bulk(*ask, "--output-format", "csv") == 0
    assert bulk.out.splitlines()[0] == "path,what color is it?,what color is it? confidence"
    assert bulk("vqa", "p", *ask[2:], "--suffix", "!") == 0
    assert Path("p/a.txt").read_text() == "red!\n"


def test_match(bulk: Bulk) -> None:
    pictures(Path("p"), ["a.png"])
    ask = ("match", "p/a.png", "--text", "red", "--text", "blue")
    assert bulk(*ask, "--json") == 0
    red, blue = json.loads(bulk.out)["scores"]
    assert red["text"] == "red"
    assert red["itm"] > blue["itm"]
    assert bulk(*ask, "--head", "itc", "--output-format", "csv") == 0
    head, row = bulk.out.splitlines()
    assert head == "path,red,blue"
    assert float(row.split(",")[1]) == pytest.approx(red["itc"], abs=1e-6)
    assert bulk(*ask) == 0
    assert bulk.out == f"{red['itm']:.4f} red, {blue['itm']:.4f} blue\n"


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_embed(bulk: Bulk, ending: str) -> None:
    pictures(Path("p"), ["a.png"])
    assert bulk("embed", "p", "-o", f"out.{ending}") == 0
    pictures(Path("p"), ["b.png"], "blue")
    assert bulk("embed", "p", "-o", f"out.{ending}") == 0
    assert "1 written, 0 failed, 1 skipped" in bulk.err
    paths, vectors = embeddings(f"out.{ending}")
    assert paths == ["p/a.png", "p/b.png"]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert bulk("embed", "p/b.png", "--output-format", "jsonl") == 0
    assert json.loads(bulk.out)["embedding"] == pytest.approx(vectors[1].tolist())
    assert tree() == {"p/a.png", "p/b.png", f"out.{ending}"}


def embeddings(path: str) -> tuple[list[str], Any]:
    if path.endswith("npz"):
        with np.load(path) as arrays:
            return arrays["paths"].tolist(), arrays["embeddings"]
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return table["path"].to_pylist(), np.array(table["embedding"].to_pylist())


def test_embed_with_pooling_that_the_model_does_not_have(bulk: Bulk) -> None:
    pictures(Path("p"), ["a.png"])
    assert bulk("embed", "p", "-o", "out.npz", "--pooling", "mean") == 2
    assert "pooling" in bulk.err


def test_capfilt(bulk: Bulk) -> None:
    pictures(Path("d/p"), ["a.png"])
    lines = [{"path": "p/a.png", "texts": ["red", "blue"]}, {"path": "p/a.png", "texts": ["red", "a red picture"]}]
    Path("d/in.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    ask = ("capfilt", "d/in.jsonl", "--seed", "1", "--num-captions", "2", "--threshold", "0.5")
    assert bulk(*ask, "-o", "d/out.jsonl") == 0
    (row,) = rows("d/out.jsonl")
    assert row["path"] == "d/p/a.png"
    web = [one["text"] for one in row["judged"] if one["source"] == "web"]
    assert web == ["red", "blue", "a red picture"]
    assert sum(one["source"] == "synthetic" for one in row["judged"]) == 2
    assert row["texts"] == list(dict.fromkeys(one["text"] for one in row["judged"] if one["kept"]))
    assert bulk(*ask, "-o", "d/out.jsonl") == 0
    assert "1 skipped" in bulk.err


@pytest.mark.parametrize("line", ["no json", "[]", '{"texts": []}', '{"path": 3}', '{"path": "a.png", "texts": "a"}'])
def test_a_manifest_that_is_none(bulk: Bulk, line: str) -> None:
    Path("in.jsonl").write_text(f'{{"path": "a.png"}}\n\n{line}\n')
    assert bulk("capfilt", "in.jsonl") == 2
    assert bulk.err.startswith("blip-serve: in.jsonl, line 3: ")
    assert bulk("capfilt", "none.jsonl") == 2


# --- failures, and how it ends ---


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
    Path("p/000.png").write_bytes(b"no picture")
    assert bulk("caption", "p", "--fail-fast") == 1
    assert len(tree(Path("p"))) < 150


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
