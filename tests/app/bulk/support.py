"""The commands, over fakes."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.bulk import backend, command
from app.main import create_app
from app.settings import Settings
from app.start.commandline import parse
from models.fake.runner import FakeRunner, fake_models
from tests.app.support import InlineDecoder, png

COLOURS = ("red", "blue", "green", "white")
Answer = Callable[[httpx.Request], httpx.Response] | Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]


def pictures(folder: Path, names: Sequence[str], colour: str = "red") -> list[Path]:
    made = [folder / name for name in names]
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(colour))
    return made


def rows(path: str | Path) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def tree(folder: Path = Path()) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class Bulk:
    """`blip-serve` with these words, over a service of fakes in this process; over `answer`, if a test sets it, for
    those that name a --url. Returns the exit code; what was told is in `out` and `err`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        self._monkeypatch = monkeypatch
        self._captured = capfdbinary
        self.tower, self.heads = FakeRunner("fake-tower"), FakeRunner("fake-heads")
        self.out = self.err = ""
        self.settings: dict[str, Any] = {}  # of the service that was started
        started = backend.in_this_process
        monkeypatch.setattr(backend, "in_this_process", lambda flags: started(flags, self._make))

    def _make(self, settings: Settings) -> Any:
        self.settings = settings.model_dump()
        return create_app(settings, lambda _: fake_models(self.tower, self.heads), lambda *_: InlineDecoder())

    def answers(self, answer: Answer) -> None:
        self._monkeypatch.setattr(backend, "elsewhere", lambda _: httpx.MockTransport(answer))

    def stdin(self, data: bytes) -> None:
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    def __call__(self, *words: str | Path) -> int:
        asked = parse([str(word) for word in words])
        code = command.main(asked.command, asked.flags)
        self.read()
        return code

    def read(self) -> None:
        told = self._captured.readouterr()
        self.out, self.err = (text.decode(errors="surrogateescape") for text in told)


class Scripted(Bulk):
    """Over a service that answers each picture alike, and keeps what it was asked. `trouble`: answers and errors that
    come first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        super().__init__(monkeypatch, capfdbinary)
        self.asked: list[dict[str, Any]] = []
        self.limits: dict[str, float] = {}
        self.trouble: list[httpx.Response | Exception] = []
        self.answers(self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/models":
            return httpx.Response(200, json=models_answer(self.limits))
        self.asked.append(json.loads(request.content))
        if self.trouble:
            if isinstance(trouble := self.trouble.pop(0), Exception):
                raise trouble
            return trouble
        caption = {"text": "a picture", "confidence": 0.5, "alternatives": []}
        return httpx.Response(200, json={"model": "scripted", "captions": [caption]})

    @staticmethod
    def size_of(image: str) -> tuple[int, int]:
        return Image.open(io.BytesIO(base64.b64decode(image))).size


def models_answer(limits: dict[str, float]) -> dict[str, Any]:
    every = {"max_body_bytes": 2**20, "max_pixels": 10**6, "max_side": 10**4, "request_timeout_seconds": 60}
    told = {"checkpoint": "c", "revision": None, "device": "cpu", "dtype": "fp32", "image_size": 50}
    models = [
        {"name": name, "family": "f", "note": None, "template": None, "tasks": {"caption": told}}
        for name in ("scripted", "other")
    ]
    return {"models": models, "limits": every | limits}


def problem(status: int, slug: str, retry_after: int | None = None) -> httpx.Response:
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after}"}
    body = {"type": f"/errors/{slug}", "title": slug, "status": status, "detail": f"It is {slug}.", "request_id": "r"}
    return httpx.Response(status, headers=headers, json=body)
