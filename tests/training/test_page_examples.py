"""The page's example pictures are those that are drawn here."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from training.page_examples import FOLDER, SCENES, draw


def test_they_are_all_there() -> None:
    assert {path.stem for path in FOLDER.glob("*.png")} == set(SCENES)


@pytest.mark.parametrize("name", SCENES)
def test_the_pictures_are_those_that_are_drawn(name: str) -> None:
    with Image.open(FOLDER / f"{name}.png") as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(draw(name).convert("RGB")))
