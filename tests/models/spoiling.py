"""Checkpoints to load from a folder, and ways to spoil them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from models import loader
from models.base import ServedModel
from models.weights import CheckpointError

Spoil = Callable[[Path], object]


def load(folder: Path, entries: str, dtype: str = "fp32", family: str = "blip") -> ServedModel:
    """One served model from catalog lines whose folders lie in `folder`."""
    text = f'[profiles]\nmine = ["mine"]\n[models.mine]\nfamily = "{family}"\n{entries}\n'
    (folder / "catalog.toml").write_text(text)
    (model,) = loader.load("mine", catalog=folder / "catalog.toml", device="cpu", dtype=dtype, threads=1)
    return model


def complaint(folder: Path, entries: str, name: str, family: str = "blip") -> str:
    """Why it does not load: one line that names the checkpoint `name`."""
    with pytest.raises(CheckpointError) as caught:
        load(folder, entries, family=family)
    message, start = str(caught.value), f"cannot load the checkpoint {folder / name}: "
    assert message.startswith(start)
    assert "\n" not in message
    return message.removeprefix(start)


def without(*files: str) -> Spoil:
    def remove(folder: Path) -> None:
        for file in files:
            (folder / file).unlink()

    return remove


def corrupt(file: str) -> Spoil:
    return lambda folder: (folder / file).write_text("{oops")


def changed(file: str, **values: Any) -> Spoil:
    """With other values in a JSON file; `a__b` is b in a."""

    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        for key, value in values.items():
            *parents, last = key.split("__")
            place = content
            for parent in parents:
                place = place[parent]
            place[last] = value
        (folder / file).write_text(json.dumps(content))

    return change


def with_more_tokens(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<new{number}>" for number in range(30)])
    tokenizer.save_pretrained(folder)
