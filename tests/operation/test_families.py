"""A CLIP of full size, ViT-B/32, with random weights in place of its own, beside the demo model: the process starts,
its answers are the library's, and what it takes is told."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from bench.service import RunningService, running_service
from tests.app.support import encoded
from tests.library.checkpoints import write_full_clip
from tests.library.lab import PICTURES, blots, furthest, vectors
from tests.library.reference import Answers, Reference

pytestmark = pytest.mark.timeout(900)  # 600 MB are written, and read twice
TEXTS = ["x", "a red dog", "red dog " * 35]
NUM_PICTURES = 64
CATALOG = '[profiles]\nfull = ["demo", "full"]\n[models.full]\nfamily = "clip"\nmatch = { checkpoint = "full" }\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    write_full_clip(folder / "full")
    (folder / "catalog.toml").write_text(CATALOG)
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> Answers:
    return Reference(folder / "full").answers(PICTURES, TEXTS)


@pytest.fixture(scope="module")
def service(folder: Path, expected: Answers) -> Iterator[RunningService]:  # noqa: ARG001  # whose memory is free again
    with running_service(profile="full", catalog=folder / "catalog.toml", dtype="fp32", device="cpu") as service:
        yield service


def test_its_answers_are_the_librarys(service: RunningService, expected: Answers) -> None:
    images = [base64.b64encode(picture).decode() for picture in PICTURES]
    body = {"model": "full", "images": images, "text": TEXTS}
    answer = httpx.post(f"{service.url}/embed", json=body, timeout=120).json()
    assert furthest(vectors(answer["images"]), expected.images) < 1e-5
    assert furthest(vectors(answer["texts"]), expected.texts) < 1e-5


def test_both_models_answer_at_once(service: RunningService, figure: Callable[[str], None]) -> None:
    """The figures are for this machine: pictures that are new, and the other model's captions among them."""

    pictures = [encoded(blots(number, (320, 240))) for number in range(NUM_PICTURES)]

    async def every() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=service.url, timeout=300) as client:
            new = [client.post("/embed", data={"model": "full"}, files={"image": one}) for one in pictures]
            others = [client.post("/caption", data={"model": "demo"}, files={"image": one}) for one in pictures[:8]]
            return await asyncio.gather(*new, *others)

    began = time.monotonic()
    responses = asyncio.run(every())
    seconds = time.monotonic() - began
    assert {response.status_code for response in responses} == {200}
    figure(f"families: CLIP ViT-B/32, fp32: {NUM_PICTURES / seconds:.1f} pictures/s")
    figure(f"families: {service.peak_bytes() / 1e6:.0f} MB at the peak, the demo's models included")
