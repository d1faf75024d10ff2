"""The second table of docs/families.md: how far masks, boxes and answers over HTTP are from the library's.

python -m tests.library.region_figures"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from models.families.library.texts import TextReader
from tests.app.support import Asking, asking, b64
from tests.app.test_library_regions import KINDS, TEXTS, catalog_of, left_padded
from tests.library.lab import furthest
from tests.library.region_answers import SHOWN, by_score, expected
from tests.library.regions import ANSWERS, Numbers, Regions

DTYPES = ("bf16", "fp16", "int8")


def answered(kind: str, service: Asking, *, together: bool) -> Numbers:
    path = f"/{KINDS[kind][0]}"
    bodies = [body(kind, picture, text) for picture, _ in SHOWN for text in TEXTS]
    answers = service.ask(path, bodies) if together else [service.ask(path, [one])[0] for one in bodies]
    sizes = [size for _, size in SHOWN for _ in TEXTS]
    return np.concatenate([numbers(kind, answer, size) for answer, size in zip(answers, sizes, strict=True)])


def body(kind: str, picture: bytes, text: str) -> dict[str, Any]:
    if kind == "vilt-nlvr2":
        return {"images": [b64(picture)] * 2, "question": text}
    asked = {"image": b64(picture), "question" if kind == "vilt" else "text": text}
    return asked | ({"threshold": 0} if kind.startswith("owl") else {})


def numbers(kind: str, answer: Any, size: tuple[int, int]) -> Numbers:
    if kind == "clipseg":
        return np.array([one["score"] for one in answer["segments"]])
    if kind.startswith("owl"):
        found = answer["detections"]
        return by_score([one["score"] for one in found], [one["box"] for one in found], size)
    if kind == "vilt match":
        return np.array([pair["itm"] for row in answer["scores"] for pair in row])
    order = sorted(answer["answers"][0]["candidates"], key=lambda one: LABELS[kind].index(one["answer"]))
    return np.array([one["probability"] for one in order])


LABELS = {"vilt": ANSWERS, "vilt-nlvr2": ("False", "True")}


def row(kind: str) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        catalog = catalog_of(kind, folder)
        right = expected(kind, Regions(folder / KINDS[kind][0], KINDS[kind][2]))
        with asking("tiny", catalog) as service:
            alone = furthest(answered(kind, service, together=False), right)
            batch = furthest(answered(kind, service, together=True), right)
            with patch.object(TextReader, "batch", left_padded):
                badly = furthest(answered(kind, service, together=True), right)
        others = []
        for dtype in DTYPES:
            with asking("tiny", catalog, dtype=dtype) as service:
                others.append(np.abs(answered(kind, service, together=True) - right).mean())
    figures = " | ".join(f"{mean:.1g}" for mean in others)
    return f"| `{kind}` | {alone:.0e} | {batch:.0e} | {badly:.1g} | {figures} |"


if __name__ == "__main__":
    print("| checkpoint | alone | in a batch | padded badly | bf16 | fp16 | int8 |\n|---|---|---|---|---|---|---|")
    for kind in KINDS:
        print(row(kind), flush=True)
