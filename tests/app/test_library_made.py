"""Where in a picture the thing is, by weights that find what is red: known by construction, in the picture's own
pixels, whatever its shape, and turned by its EXIF too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from PIL import Image

from tests.app.support import Asking, asking, b64, encoded, picture
from tests.app.test_library_regions import CATALOG, mask_of
from tests.app.test_regions import lying
from tests.library.made import GRID, RED

SHAPES = [(48, 144), (144, 48), (96, 96), (300, 100), (100, 300)]
CELLS = [(2, 1), (0, 2), (1, 0)]  # column and row, in the grid of patches
TASKS = {"clipseg": "segment", "owlvit": "detect", "owlv2": "detect"}


@pytest.fixture(scope="module")
def finds_red(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Asking]]:
    made: dict[str, Asking] = {}
    with ExitStack() as stack:

        def service(family: str) -> Asking:
            if family not in made:
                folder = tmp_path_factory.mktemp("red")
                RED[family](folder / TASKS[family])
                (folder / "catalog.toml").write_text(CATALOG.format(family=family, task=TASKS[family]))
                made[family] = stack.enter_context(asking("tiny", folder / "catalog.toml"))
            return made[family]

        yield service


def drawn(size: tuple[int, int], cell: tuple[int, int], extent: tuple[int, int]) -> Image.Image:
    """White, with one cell of the grid over `extent` in red."""
    across, down = extent[0] // GRID, extent[1] // GRID
    whole = picture("white", size)
    whole.paste("red", (cell[0] * across, cell[1] * down, (cell[0] + 1) * across, (cell[1] + 1) * down))
    return whole


def shown(image: Image.Image, turned: bool) -> str:
    return b64(lying(image) if turned else encoded(image))


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("turned", [False, True])
def test_a_mask_of_what_is_red(finds_red: Callable[[str], Asking], size: tuple[int, int], turned: bool) -> None:
    bodies = [{"image": shown(drawn(size, cell, size), turned), "text": "x"} for cell in CELLS]
    for cell, answer in zip(CELLS, finds_red("clipseg").ask("/segment", bodies), strict=True):
        [segment] = answer["segments"]
        mask = mask_of(segment)
        assert mask.shape == size[::-1]
        rows, columns = np.nonzero(mask > 0.5)
        across, down = size[0] / GRID, size[1] / GRID
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        expected = [cell[0] * across, cell[1] * down, (cell[0] + 1) * across, (cell[1] + 1) * down]
        np.testing.assert_allclose(edges, expected, atol=max(size) / 60)  # between two patches it is interpolated
        assert segment["score"] > 0.99


@pytest.mark.parametrize("family", ["owlvit", "owlv2"])
@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("turned", [False, True])
def test_a_box_of_what_is_red(
    finds_red: Callable[[str], Asking], family: str, size: tuple[int, int], turned: bool
) -> None:
    """OWLv2's grid is over the square that the picture is padded to."""
    longer = max(size)
    extent = (longer, longer) if family == "owlv2" else size
    across, down = extent[0] // GRID, extent[1] // GRID
    cells = [(x, y) for x, y in CELLS if (x + 1) * across <= size[0] and (y + 1) * down <= size[1]]
    assert cells
    bodies = [{"image": shown(drawn(size, cell, extent), turned), "text": ["x", "a dog"]} for cell in cells]
    for (column, row), answer in zip(cells, finds_red(family).ask("/detect", bodies), strict=True):
        [detection] = answer["detections"]
        middle = (column + 1) * across, (row + 1) * down
        expected = [middle[0] - across / 2, middle[1] - down / 2, middle[0] + across / 2, middle[1] + down / 2]
        np.testing.assert_allclose(detection["box"], expected, atol=longer / 1000)
        assert detection["score"] > 0.99
