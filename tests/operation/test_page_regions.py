"""The tabs Segment and Detect in a real Chromium, over a model that finds colours: masks and boxes are drawn where the
things are, in a picture that is wide, tall or turned; and nothing of one tab is left over the picture in another."""

# ruff: noqa: F811  # fixtures of test_page.py

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.app.support import encoded, picture
from tests.app.test_regions import lying
from tests.app.test_server import Server, start
from tests.operation.test_page import (  # noqa: F401
    SCHEMES,
    SIZES,
    TABS,
    Figure,
    Visit,
    Visiting,
    axe,
    browser,
    look,
    visit,
)

pytestmark = pytest.mark.timeout(600)
REGIONS = ("segment", "detect")
OVER = """
() => {
  const canvas = document.getElementById("heat"), { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) if (data[4 * (y * width + x) + 3] > 120)
    [left, top, right, bottom] = [Math.min(left, x), Math.min(top, y), Math.max(right, x + 1), Math.max(bottom, y + 1)];
  return [left / width, top / height, right / width, bottom / height];
}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start() as server:
        yield server


def quarter(size: tuple[int, int]) -> Image.Image:
    """Red in the lower right quarter, blue in the upper left, white elsewhere."""
    width, height = size
    whole = picture("white", size)
    whole.paste("red", (width // 2, height // 2, width, height))
    whole.paste("blue", (0, 0, width // 2, height // 2))
    return whole


def opened(there: Visit, upload: bytes) -> None:
    assert there.served() == list(TABS)
    there.give("choose", upload)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES)
def test_as_people_see_it(
    server: Server, visit: Visiting, axe: str, size: str, scheme: Literal["light", "dark"], figure: Figure
) -> None:
    there = visit(server.url, size, scheme, axe)
    opened(there, encoded(quarter((400, 300))))
    for tab in REGIONS:
        there.page.click(f"#tab-{tab}")
        there.page.fill("#pieces" if tab == "segment" else "#things", "red\nblue\ngreen")
        there.page.click(f"#form-{tab} .primary")
        there.answer(tab).wait_for()
        look(there, f"{tab}-{size}-{scheme}")
    there.check()
    figure(f"{size}, {scheme}: {', '.join(REGIONS)}: axe finds nothing serious, nothing reaches past the side")


@pytest.mark.parametrize("shape", [(900, 300), (300, 900), (400, 300), (3000, 1000)])
@pytest.mark.parametrize("turned", [False, True])
def test_over_the_thing_itself(
    server: Server, visit: Visiting, shape: tuple[int, int], turned: bool, figure: Figure
) -> None:
    """The red quarter, whatever the shape; also where the page has made the picture smaller."""
    there = visit(server.url)
    shown = quarter(shape)
    opened(there, lying(shown) if turned else encoded(shown))
    there.page.click("#tab-segment")
    there.page.fill("#pieces", "red\nwhite")
    there.page.click("#form-segment .primary")
    there.answer("segment").wait_for()
    there.page.locator("#answer-segment .chips button", has_text="red").click()
    drawn = there.page.evaluate(OVER)
    assert drawn == pytest.approx([0.5, 0.5, 1, 1], abs=0.1)
    there.page.click("#tab-detect")
    expect(there.page.locator("#heat")).to_be_hidden()
    there.page.fill("#things", "red")
    there.page.click("#form-detect .primary")
    there.answer("detect").wait_for()
    expect(there.page.locator("#boxes b")).to_have_count(4)
    frame = there.page.locator("#picture").bounding_box()
    boxes = [one.bounding_box() for one in there.page.locator("#boxes b").all()]
    assert frame is not None
    assert min(share(box, frame, "x") for box in boxes) == pytest.approx(0.5, abs=0.02)
    assert min(share(box, frame, "y") for box in boxes) == pytest.approx(0.5, abs=0.02)
    assert max(share(box, frame, "x", 1) for box in boxes) == pytest.approx(1, abs=0.02)
    assert max(share(box, frame, "y", 1) for box in boxes) == pytest.approx(1, abs=0.02)
    there.page.click("#tab-caption")
    expect(there.page.locator("#boxes")).to_be_hidden()
    there.page.click("#tab-segment")
    expect(there.page.locator("#heat")).to_be_visible()
    there.page.click("#tab-detect")
    expect(there.page.locator("#boxes b")).to_have_count(4)
    there.check()
    figure(
        f"{shape}{', turned' if turned else ''}: mask and boxes over the red quarter: {[round(x, 2) for x in drawn]}"
    )


def share(box: Any, frame: Any, side: str, end: int = 0) -> float:
    length = {"x": "width", "y": "height"}[side]
    return (box[side] + end * box[length] - frame[side]) / frame[length]
