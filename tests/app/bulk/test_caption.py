"""`blip-serve caption`: which pictures, what is asked, what is written; over a model that knows colours."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.app.bulk.support import Bulk, Scripted, pictures, rows, tree

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


def test_a_dash_is_stdout(bulk: Bulk) -> None:
    pictures(Path(), ["a.png"])
    assert bulk("caption", "a.png", "--output-format", "jsonl", "-o", "-") == 0
    assert json.loads(bulk.out)["path"] == "a.png"
    assert not Path("-").exists()
