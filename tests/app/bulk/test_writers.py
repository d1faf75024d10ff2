"""What a run that was killed leaves, and how the next one goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.bulk.results import Result
from app.bulk.writers.arrays import Arrays
from app.bulk.writers.lines import Csv, ImageFolder, JsonLines, Lines
from app.bulk.writers.sidecar import Sidecars
from app.bulk.writers.tables import Npz, Parquet, Table
from app.bulk.writers.writer import OutputError
from app.start.bulk import UsageError

NAMES = ["p/a.png", 'p/b,"\n.png', "p/c\rr.png", "p/ü\udcff.png", "p/d.png"]
MAKERS: dict[str, Callable[..., Lines]] = {
    "jsonl": lambda **more: JsonLines("out", **more),
    "csv": lambda **more: Csv("out", ["caption", "confidence"], **more),
    "imagefolder": lambda **more: ImageFolder("p/metadata.jsonl", **more),
}


def result(path: str, vectors: Any = ((1.0, 2.0),)) -> Result:
    record = {"caption": 'a "b", c', "confidence": 0.5}
    return Result(path, record, "a", ('a "b", c', 0.5), vectors=vectors)


def run(writer: Lines, paths: list[str]) -> list[str]:
    """Returns what was there."""
    there = list(writer.written())
    writer.open()
    for path in paths:
        writer.write(result(path))
    writer.close()
    return there


@pytest.fixture(autouse=True)
def _folder() -> None:
    Path("p").mkdir()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_whatever_is_torn_is_cut_off_and_written_again(make: Callable[..., Lines]) -> None:
    assert run(make(), NAMES) == []
    path = Path(make().path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        there = run(make(), [])
        assert [Path(one).name for one in there] == [Path(one).name for one in NAMES[: len(there)]]
        assert run(make(), NAMES[len(there) :]) == there
        assert path.read_bytes() == whole


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_overwrite_begins_anew_with_the_first_result(make: Callable[..., Lines]) -> None:
    run(make(), NAMES)
    path = Path(make().path)
    whole = path.read_bytes()
    assert run(make(overwrite=True), []) == []
    assert path.read_bytes() == whole
    run(make(overwrite=True), NAMES[:1])
    assert whole.startswith(path.read_bytes())
    assert path.stat().st_size < len(whole)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("text", ["my own notes\n", '{"other": 1}\n', "[]\n", '{"path": 3, "file_name": 3}\n'])
def test_somebody_elses_file_is_not_touched(make: Callable[..., Lines], text: str) -> None:
    path = Path(make().path)
    path.write_text(text)
    with pytest.raises(UsageError, match="was not written by such a run"):
        list(make().written())
    assert path.read_text() == text


def test_a_csv_with_other_columns_is_refused() -> None:
    run(MAKERS["csv"](), NAMES)
    with pytest.raises(UsageError):
        list(Csv("out", ["answer", "confidence"]).written())


def test_two_runs_do_not_write_to_one_file() -> None:
    first, second = JsonLines("out"), JsonLines("out")
    first.open()
    with pytest.raises(OutputError, match="another run writes to out"):
        list(second.written())
    second.close()
    first.close()
    third = JsonLines("out")
    assert list(third.written()) == []
    third.close()


def test_an_output_that_cannot_be_opened() -> None:
    with pytest.raises(OutputError, match="cannot write none/out: No such file or directory"):
        JsonLines("none/out").open()
    with pytest.raises(OutputError, match="cannot continue p: Is a directory"):
        list(JsonLines("p").written())


def test_a_folder_of_images_has_relative_names() -> None:
    run(ImageFolder("p/metadata.jsonl"), ["p/x/a.png"])
    assert json.loads(Path("p/metadata.jsonl").read_text()) == {"file_name": "x/a.png", "text": "a"}
    with pytest.raises(UsageError, match=r"a\.png is not below "):
        ImageFolder("p/metadata.jsonl").target("a.png")


# --- a text beside each picture ---


def test_a_text_is_there_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Sidecars()
    writer.write(result("p/a.b.png"))
    assert Path("p/a.b.txt").read_bytes() == b"a\n"

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.bulk.writers.sidecar.os.replace", fail)
    with pytest.raises(OSError, match="No space"):
        writer.write(result("p/c.png"))
    assert {path.name for path in Path("p").iterdir()} == {"a.b.txt"}


def test_what_a_killed_run_left_is_tidied_up() -> None:
    Path("p/.a.txt.partial").write_text("tor")
    Sidecars().write(result("p/a.png"))
    assert {path.name for path in Path("p").iterdir()} == {"a.txt"}


def test_a_text_that_is_no_unicode_is_added_to_as_it_is() -> None:
    Path("p/a.txt").write_bytes(b"\xff mine\n")
    Sidecars(existing="append").write(result("p/a.png"))
    assert Path("p/a.txt").read_bytes() == b"\xff mine, a\n"


@pytest.mark.parametrize(
    ("existing", "there", "then"),
    [
        ("append", "banana", "banana, a"),
        ("append", "b, a", "b, a"),
        ("append", "a", "a"),
        ("prepend", "ab", "a, ab"),
        ("prepend", "a, b", "a, b"),
    ],
)
def test_a_text_is_there_if_it_is_between_separators(existing: Any, there: str, then: str) -> None:
    Path("p/a.txt").write_text(f"{there}\n")
    for _ in range(2):  # a run that was killed and repeated
        Sidecars(existing=existing).write(result("p/a.png"))
        assert Path("p/a.txt").read_text() == f"{then}\n"


@pytest.mark.parametrize("length", [200, 247, 251])
def test_a_name_as_long_as_names_may_be(length: int) -> None:
    name = "n" * length
    Sidecars().write(result(f"p/{name}.png"))
    assert {path.name for path in Path("p").iterdir()} == {f"{name}.txt"}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_line_of_somebody_else_is_not_taken_for_a_torn_one(make: Callable[..., Lines]) -> None:
    writer = make()
    Path(writer.path).write_text("a note without an end of line")
    with pytest.raises(UsageError, match="was not written by such a run"):
        run(writer, NAMES)
    writer.close()
    assert Path(writer.path).read_text() == "a note without an end of line"


# --- arrays ---

TABLES: dict[str, Callable[[], Table]] = {"npz": Npz, "parquet": Parquet}


def embedded(table: Table) -> dict[str, Any]:
    return {row.path: np.frombuffer(row.values, "<f4").reshape(row.shape).tolist() for row in table.read("out")}


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_rows_of_several_runs_become_one_file(make: Callable[[], Table]) -> None:
    assert run(Arrays("out", make()), ["a", "ü" * 40]) == []
    assert run(Arrays("out", make()), []) == ["a", "ü" * 40]
    killed = Arrays("out", make())
    assert len(list(killed.written())) == 2
    killed.open()
    killed.write(result("c", ((3.0, 4.0),)))
    kept = Path(killed.path).read_bytes()
    Path(killed.path).write_bytes(kept + kept[:-9])
    Lines.close(killed)  # as a killed process does
    assert run(Arrays("out", make()), ["d"]) == ["a", "ü" * 40, "c"]
    assert embedded(make()) == {"a": [1, 2], "ü" * 40: [1, 2], "c": [3, 4], "d": [1, 2]}
    assert {path.name for path in Path().iterdir()} == {"p", "out"}
    run(Arrays("out", make(), overwrite=True), ["e"])
    assert embedded(make()) == {"e": [1, 2]}


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_rows_that_are_in_the_file_already_count_once(
    make: Callable[[], Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was killed between the file and the end of its rows."""
    with monkeypatch.context() as killed:
        killed.setattr("app.bulk.writers.arrays.os.unlink", lambda _: None)
        run(Arrays("out", make()), ["a", "b"])
    run(Arrays("out", make()), ["c"])
    assert list(embedded(make())) == ["a", "b", "c"]


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_overwriting_that_was_killed_leaves_nothing_twice(make: Callable[[], Table]) -> None:
    run(Arrays("out", make()), ["a", "b"])
    killed = Arrays("out", make(), overwrite=True)
    assert list(killed.written()) == []
    killed.open()
    killed.write(result("a"))
    Lines.close(killed)
    assert run(Arrays("out", make()), ["b"]) == ["a"]
    assert [row.path for row in make().read("out")] == ["a", "b"]


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_several_vectors_of_a_picture(make: Callable[[], Table]) -> None:
    writer = Arrays("out", make())
    writer.open()
    writer.write(result("a", ((1.0, 2.0), (3.0, 4.0), (5.0, 6.0))))
    with pytest.raises(OutputError, match="another model"):
        writer.write(result("b"))
    writer.close()
    assert embedded(make()) == {"a": [[1, 2], [3, 4], [5, 6]]}


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_a_file_that_has_no_embeddings(make: Callable[[], Table]) -> None:
    Path("out").write_bytes(b"PK\x03\x04 my own")
    with pytest.raises(OutputError, match="cannot continue out"):
        list(Arrays("out", make()).written())


def test_a_name_that_parquet_cannot_hold_fails_alone() -> None:
    writer = Arrays("out", Parquet())
    writer.open()
    with pytest.raises(OSError, match="its name is not UTF-8"):
        writer.write(result("ü\udcff.png"))
    writer.write(result("ü.png"))
    writer.close()
    assert [row.path for row in Parquet().read("out")] == ["ü.png"]


def test_parquet_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.bulk.writers.tables.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="needs the extra parquet"):
        Parquet()
