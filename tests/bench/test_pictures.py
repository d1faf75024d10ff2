"""The benchmark's photographs."""

from __future__ import annotations

import io

from PIL import Image

from bench.pictures import make_pictures


def test_they_are_distinct_and_the_same_in_every_run() -> None:
    pictures = make_pictures(6, (64, 48))
    assert len(set(pictures)) == 6
    assert pictures == make_pictures(6, (64, 48))


def test_they_are_jpegs_of_the_asked_size() -> None:
    ticks: list[None] = []
    (picture,) = make_pictures(1, (64, 48), lambda: ticks.append(None))
    image = Image.open(io.BytesIO(picture))
    assert (image.format, image.size, len(ticks)) == ("JPEG", (64, 48), 1)
