"""Animations as videos: which frames, what they are, and what is refused before any of it is decoded."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.decoding.animation import uniformly
from app.decoding.look import MOST_FRAMES, gif_frames
from app.decoding.picture import Opened, finish, open_picture
from app.decoding.protocol import Decoded, Job
from app.errors import BadImageError
from models.framing import Frame, Framing
from tests.app.decoding import crafted
from tests.app.decoding.test_pool import lab
from tests.app.support import RED, animated, encoded, picture, run

SIDE = 32
FRAME = b",\0\0\0\0\1\0\1\0\0\x02\x02\x44\x01\0"  # of a GIF: one pixel
COLOURS = [(10 * number, 255 - 10 * number, 5 * number) for number in range(20)]
KINDS = ("GIF", "WEBP")


def job(
    data: bytes, most_frames: int = 8, *, image_size: int = SIDE, max_pixels: int = 1_000_000, max_side: int = 16_384
) -> Job:
    return Job(data, Framing(image_size), max_pixels, max_side, most_frames=most_frames)


def opened(data: bytes, **options: Any) -> Opened:
    return open_picture(job(data, **options))


def decoded(data: bytes, **options: Any) -> Decoded:
    asked = job(data, **options)
    return finish(open_picture(asked), asked)


def colours(frames: Sequence[Frame]) -> list[list[int]]:
    return [np.asarray(frame)[SIDE // 2, SIDE // 2].tolist() for frame in frames]


@pytest.mark.parametrize(
    ("number", "places"),
    [
        (1, (0,)),
        (3, (0, 1, 2)),
        (8, tuple(range(8))),
        (9, (0, 1, 2, 3, 4, 5, 6, 7)),
        (16, tuple(range(0, 16, 2))),
        (20, (0, 2, 5, 7, 10, 12, 15, 17)),
    ],
)
def test_frames_at_equal_distances(number: int, places: tuple[int, ...]) -> None:
    assert uniformly(number, 8) == places


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [2, 8, 20])
def test_the_frames_of_an_animation(kind: str, number: int) -> None:
    frames = decoded(animated(COLOURS[:number], kind)).frames
    expected = [COLOURS[place] for place in uniformly(number, 8)]
    assert [np.asarray(frame).shape for frame in frames] == [(SIDE, SIDE, 3)] * len(expected)
    np.testing.assert_allclose(colours(frames), expected, atol=2)


@pytest.mark.parametrize("kind", KINDS)
def test_who_asks_for_a_picture_gets_the_first_frame(kind: str) -> None:
    data = animated(COLOURS, kind)
    [frame] = decoded(data, most_frames=1).frames
    np.testing.assert_allclose(colours([frame]), COLOURS[:1], atol=2)
    assert opened(data, most_frames=1).num_bytes < opened(data).num_bytes


@pytest.mark.parametrize("data", [RED, animated(COLOURS[:1], "GIF"), animated(COLOURS[:3], "PNG")])
@pytest.mark.parametrize("most_frames", [0, 8])
def test_a_picture_is_one_frame(data: bytes, most_frames: int) -> None:
    assert decoded(data, most_frames=most_frames).image.tobytes() == decoded(data, most_frames=1).image.tobytes()
    assert len(decoded(data, most_frames=most_frames).frames) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_animation_is_no_frame_of_another(kind: str) -> None:
    with pytest.raises(BadImageError, match="animated"):
        opened(animated(COLOURS[:2], kind), most_frames=0)


def test_frames_are_put_onto_those_before() -> None:
    """Parts of the picture, transparency over white, and a frame that is taken away again."""
    base = Image.new("RGBA", (SIDE, SIDE), (255, 0, 0, 255))
    part = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    part.paste((0, 0, 255, 255), (0, 0, SIDE // 2, SIDE))
    clear = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    data = encoded(base, "WEBP", save_all=True, append_images=[part, clear], lossless=True)
    frames = decoded(data).frames
    halves = [np.asarray(frame)[4, [4, 28]].tolist() for frame in frames]
    red, blue, white = [255, 0, 0], [0, 0, 255], [255, 255, 255]
    assert halves == [[red, red], [blue, white], [white, white]]
    gif = encoded(base.convert("RGB"), "GIF", save_all=True, append_images=[part], disposal=1)
    assert len(decoded(gif).frames) == 2


def test_its_frames_are_walked_as_pillow_does() -> None:
    for kind in range(4):
        options: dict[str, Any] = {"disposal": kind, "loop": kind, "comment": b"x" * 300, "duration": 40}
        data = animated(COLOURS[: 2 + kind], "GIF", **options)
        with Image.open(io.BytesIO(data)) as image:
            assert len(gif_frames(data)) == image.n_frames == 2 + kind  # type: ignore[attr-defined]
    assert [len(gif_frames(data[:end])) for end in range(len(data))] == sorted(
        len(gif_frames(data[:end])) for end in range(len(data))
    )


# --- refused ---


def moved(data: bytes, x: int, y: int) -> bytes:
    """A GIF with one more frame, of one pixel, there."""
    return data[:-1] + b"," + struct.pack("<4H", x, y, 1, 1) + FRAME[9:] + b";"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(crafted.GIF[:-1] + FRAME * MOST_FRAMES + b";", "more than 1000 frames", id="GIF: frames"),
        pytest.param(crafted.webp_frames(MOST_FRAMES + 1), "more than 1000 frames", id="WebP: frames"),
        pytest.param(animated(COLOURS, "GIF", size=(300, 200)), "20 frames of 300 x 200", id="GIF: pixels of all"),
        pytest.param(animated(COLOURS, "WEBP", size=(300, 200)), "20 frames of 300 x 200", id="WebP: pixels of all"),
        pytest.param(moved(crafted.GIF, 60_000, 60_000), "60001 x 60001 pixels", id="GIF: a frame outside"),
        pytest.param(
            crafted.GIF[:-1] + FRAME + FRAME[:-4] + b"\1\0" * 3000 + b"\0;",
            "sub-blocks of pixels",
            id="GIF: sub-blocks",
        ),
        pytest.param(
            crafted.GIF[:-1] + b"!\xfe" + b"\1x" * 1001 + b"\0" + FRAME + b";", "1000 sub-blocks", id="GIF: a comment"
        ),
        pytest.param(crafted.GIF[:-1] + bytes(66_000) + FRAME + b";", "65536 bytes between", id="GIF: filling"),
    ],
)
def test_refused_before_it_is_decoded(data: bytes, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(BadImageError, match=told):
        opened(data)


def test_a_frame_that_is_broken() -> None:
    data = animated(COLOURS[:4], "GIF", size=(200, 200))
    with pytest.raises(BadImageError, match="broken"):
        decoded(data[: len(data) - 60])
    assert len(decoded(data[: len(data) - 60], most_frames=1).frames) == 1


def test_what_it_costs_is_counted() -> None:
    one, many = (opened(animated(COLOURS[:number], "GIF", size=(200, 100))) for number in (2, 8))
    assert one.num_bytes == many.num_bytes == 28 * 200 * 100 + 8 * 3 * SIDE**2
    assert many.seconds == pytest.approx(4 * one.seconds)


def test_from_a_decoders_process() -> None:
    async def test() -> None:
        async with lab() as our:
            for kind in KINDS:
                data = animated(COLOURS, kind)
                frames = (await our.decode(data, framing=Framing(SIDE), most_frames=8)).frames
                assert [frame.tobytes() for frame in frames] == [frame.tobytes() for frame in decoded(data).frames]
                with pytest.raises(BadImageError, match="animated"):
                    await our.decode(data, most_frames=0)
                assert len((await our.decode(data)).frames) == 1
            assert our.held.now == 0
            assert max(our.held.seen) == 28 * 64 * 48 + 8 * 3 * SIDE**2
            assert our.count("decoders_crashed_total") == 0
            assert (await our.decode(encoded(picture()))).image.size == (48, 48)

    run(test)
