"""Folders of pictures: every format, sizes from icons to posters, and some that are broken."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

from app.images import FORMATS

COLOURS = ("red", "blue", "green", "yellow", "purple", "teal", "black", "brown")
ENDINGS = {
    "JPEG": ("jpg", "jpeg", "JPG", "jfif"),
    "PNG": ("png",),
    "WEBP": ("webp",),
    "GIF": ("gif",),
    "BMP": ("bmp", "dib"),
    "TIFF": ("tif", "tiff"),
    "AVIF": ("avif",),
}
HEIC = Path("tests/app/cases/photo.heic")
BREAKS: tuple[Callable[[bytes], bytes], ...] = (
    lambda data: data[: len(data) // 3],
    lambda _: b"",
    lambda _: b"this is no picture\n",
    lambda data: data[:8] + bytes(len(data) - 8),
    lambda data: b"\xff\xd8\xff\xe0" + data,
)


def shapes(number: int, size: tuple[int, int] = (96, 96)) -> Image.Image:
    """Two shapes on white; the same for each number."""
    generator = random.Random(number)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for side in (0, 1):
        extent = generator.randrange(size[1] // 5, size[1] // 3)
        left = side * size[0] // 2 + generator.randrange(size[0] // 2 - extent)
        top = generator.randrange(size[1] - extent)
        form = generator.choice((draw.ellipse, draw.rectangle))
        form((left, top, left + extent, top + extent), generator.choice(COLOURS))
    return image


def make_folder(folder: Path, number: int, num_broken: int) -> dict[str, str]:
    """`number` pictures in three folders, `num_broken` of them broken, one above the service's limits. Returns the
    format of each by its path; "broken" for those."""
    formats = [name for name in FORMATS if name in ENDINGS]
    made: dict[str, str] = {}
    for place in range(number):
        kind = formats[place % len(formats)]
        ending = ENDINGS[kind][place // len(formats) % len(ENDINGS[kind])]
        path = folder / ("", "one", "one/two")[place % 3] / f"picture {place:04}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        size = (17_000, 400) if place == 7 else (random.Random(place).randrange(64, 256), 96)
        shapes(place, size).save(buffer, kind)
        broken = place % (number // num_broken) == 5
        data = BREAKS[place % len(BREAKS)](buffer.getvalue()) if broken else buffer.getvalue()
        path.write_bytes(data)
        made[str(path)] = "broken" if broken else kind
    if "HEIF" in FORMATS:
        (folder / "photo.heic").write_bytes(HEIC.read_bytes())
        made[str(folder / "photo.heic")] = "HEIF"
    return made


def make_links(folder: Path, number: int) -> None:
    """So many names of ten pictures: a file system allows one file only so many."""
    folder.mkdir(parents=True)
    for place in range(10):
        shapes(place).save(folder / f"{place:08}.png")
    for place in range(10, number):
        (folder / f"{place:08}.png").symlink_to(f"{place % 10:08}.png")
