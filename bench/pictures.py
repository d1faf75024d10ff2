"""Camera-sized JPEGs: seeded crops and flips of scikit-learn's sample photos, upscaled."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from PIL import Image
from sklearn.datasets import load_sample_images

SIZE = (1600, 1200)  # pixels
QUALITY = 90


def make_pictures(count: int, size: tuple[int, int] = SIZE, tick: Callable[[], object] = bool) -> list[bytes]:
    """Distinct pictures, the same in every run. `tick` is called after each."""
    photos = [Image.fromarray(photo) for photo in load_sample_images()["images"]]

    def make(seed: int) -> bytes:
        encoded = io.BytesIO()
        crop(photos[seed % len(photos)], random.Random(seed), size).save(encoded, "JPEG", quality=QUALITY)
        tick()
        return encoded.getvalue()

    with ThreadPoolExecutor() as pool:
        return list(pool.map(make, range(count)))


def crop(photo: Image.Image, generator: random.Random, size: tuple[int, int]) -> Image.Image:
    """From half of the photo to nearly all of it, in the shape of `size`."""
    scale = generator.uniform(0.5, 0.95) * min(photo.width / size[0], photo.height / size[1])
    width, height = scale * size[0], scale * size[1]
    left, top = generator.uniform(0, photo.width - width), generator.uniform(0, photo.height - height)
    picture = photo.resize(size, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
    if generator.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture


class Numbers(Iterator[int]):
    """Numbers of new pictures. As many pictures are made as numbers were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __next__(self) -> int:
        self.taken += 1
        return self.taken - 1
