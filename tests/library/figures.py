"""The table of docs/families.md: how far answers over HTTP are from the library's.

python -m tests.library.figures"""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np

from models.families.library.texts import TextReader
from tests.app.support import Asking, asking
from tests.library.checkpoints import CHECKPOINTS
from tests.library.lab import IMAGES, Lab, furthest, library_lab, padded_badly, vectors
from tests.library.reference import Numbers

DTYPES = ("bf16", "fp16", "int8")


def _row(name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        with library_lab(name, Path(folder)) as lab:
            expected = np.concatenate([lab.expected.images, lab.expected.texts])
            alone = furthest(_alone(lab), expected)
            batch = furthest(_together(lab.service, lab.texts), expected)
            with patch.object(TextReader, "batch", padded_badly):
                badly = furthest(_together(lab.service, lab.texts), expected)
            texts = lab.texts
        cosines = [_least_cosine(Path(folder), dtype, texts, lab.expected.images) for dtype in DTYPES]
    figures = " | ".join(f"{cosine:.4f}" for cosine in cosines)
    return f"| `{name}` | {alone:.0e} | {batch:.0e} | {badly:.1g} | {figures} |"


def _alone(lab: Lab) -> Numbers:
    images = [vectors(lab.say("/embed", image=image)["images"]) for image in IMAGES]
    return np.concatenate([*images, *(vectors(lab.say("/embed", text=text)["texts"]) for text in lab.texts)])


def _together(service: Asking, texts: list[str]) -> Numbers:
    [answer] = service.ask("/embed", [{"images": IMAGES, "text": texts}])
    return np.concatenate([vectors(answer["images"]), vectors(answer["texts"])])


def _least_cosine(folder: Path, dtype: str, texts: list[str], images: Numbers) -> float:
    """Of pictures: all that is not exact is in the tower, but for int8."""
    with asking("tiny", folder / "catalog.toml", dtype=dtype) as service:
        return float((_together(service, texts)[: len(images)] * images).sum(1).min())


if __name__ == "__main__":
    print("| checkpoint | alone | in a batch | padded badly | bf16 | fp16 | int8 |\n|---|---|---|---|---|---|---|")
    for checkpoint in CHECKPOINTS:
        print(_row(checkpoint), flush=True)
