"""The page's example pictures are those that are drawn here."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from training.page_examples import DOCUMENTED, FOLDER, OFFERED, SCENES, draw


def test_they_are_all_there() -> None:
    assert {path.stem for path in DOCUMENTED.glob("*.png")} == set(SCENES)
    assert {path.stem for path in FOLDER.glob("*.png")} == set(OFFERED)
    for name in OFFERED:
        assert (FOLDER / f"{name}.png").read_bytes() == (DOCUMENTED / f"{name}.png").read_bytes()


@pytest.mark.parametrize("name", SCENES)
def test_the_pictures_are_those_that_are_drawn(name: str) -> None:
    with Image.open(DOCUMENTED / f"{name}.png") as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(draw(name).convert("RGB")))
