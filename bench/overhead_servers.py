"""The two processes that bench/overhead.py compares: `python -m bench.overhead_servers ours|empty PORT`."""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence

import uvicorn
from fastapi import FastAPI, Form, UploadFile
from PIL import Image
from pydantic import BaseModel

from app.server import serve
from app.settings import Settings
from app.start.listener import listen
from models.base import Item
from models.fake.runner import FakeGeneration, FakeRunner, fake_models
from models.inputs import ImageInput, Input
from models.outputs import Generated, GeneratedSequence

IMAGE_SIZE = 384  # pixels, of BLIP
ANSWER = Generated((GeneratedSequence("a red picture", 0.9, 1),))


class NoWorkTower(FakeRunner):
    """Prepares a picture as BLIP's does."""

    def prepare(self, request: Input) -> Item:
        if isinstance(request, ImageInput) and isinstance(request.image, Image.Image):
            request.image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
        return super().prepare(request)


class NoWorkHeads(FakeRunner):
    """Every caption is the same, and done at the first token: only the service itself costs time."""

    def generate(self, batch: Sequence[Item]) -> FakeGeneration:
        return NoWorkGeneration(self, batch)


class NoWorkGeneration(FakeGeneration):
    def admit(self, batch: Sequence[Item]) -> None:
        self._add(batch)

    def step(self) -> list[tuple[Item, Generated]]:
        finished = [(item, ANSWER) for item in self._rows]
        self._rows.clear()
        return finished

    def _add(self, batch: Sequence[Item]) -> None:
        self._rows |= dict.fromkeys(batch, (1, ANSWER))


class Body(BaseModel):
    image: str
    num_beams: int | None = None


empty = FastAPI()


@empty.post("/multipart")
async def read_multipart(image: UploadFile, num_beams: int | None = Form(None)) -> dict[str, object]:
    return answer_to(await image.read(), num_beams)


@empty.post("/json")
async def read_json(body: Body) -> dict[str, object]:
    return answer_to(base64.b64decode(body.image), body.num_beams)


def answer_to(image: bytes, num_beams: int | None) -> dict[str, object]:
    """A body as large as ours."""
    text = f"{len(image)} bytes, {num_beams} beams"
    return {"model": "empty", "captions": [{"text": text, "confidence": 0.9, "alternatives": []}]}


def main() -> None:
    contender, port = sys.argv[1:]
    if contender == "ours":
        settings = Settings(port=int(port))
        sockets = listen(settings.host, settings.port)
        sys.exit(serve(settings, sockets, lambda _: fake_models(NoWorkTower("tower"), NoWorkHeads("heads"))))
    uvicorn.run(empty, port=int(port), http="httptools", loop="uvloop")


if __name__ == "__main__":
    main()
