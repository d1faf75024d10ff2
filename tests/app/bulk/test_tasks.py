"""vqa, match, embed, capfilt; over a model that knows colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.app.bulk.support import Bulk, pictures, rows, tree


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
