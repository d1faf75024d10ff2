"""Services that give the bulk commands trouble, each a process: `python -m tests.operation.bulk.services NAME PORT`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import uvicorn

from app.main import create_app
from app.settings import Settings

CAPTION = {"text": "a picture", "confidence": 0.5, "alternatives": []}
TOLD = {"checkpoint": "c", "revision": None, "device": "cpu", "dtype": "fp32", "image_size": 64}
LIMITS = {"max_body_bytes": 2**24, "max_pixels": 10**8, "max_side": 10**5, "request_timeout_seconds": 60}
MODEL = {"name": "quick", "family": "f", "note": None, "template": None, "tasks": {"caption": TOLD}}
MODELS = json.dumps({"models": [MODEL], "limits": LIMITS}).encode()
ANSWER = json.dumps({"model": "quick", "captions": [CAPTION]}).encode()
FULL = json.dumps({"type": "/errors/queue-full", "title": "full", "status": 429, "detail": "Full."}).encode()


class Quick:
    """Answers as fast as it can, or holds `places` requests for `seconds` each and refuses the others. The number of
    places is in a file, if there is one."""

    def __init__(self, places: Path | None = None, seconds: float = 0.0) -> None:
        self._file = places
        self._seconds = seconds
        self._busy = 0

    async def serve(self, port: int) -> None:
        async with await asyncio.start_server(self._talk, "127.0.0.1", port, backlog=1024) as server:
            await server.serve_forever()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.lower().split(b"\r\n")
                length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
                await reader.readexactly(length)
                status, body = (b"200 OK", MODELS) if length == 0 else await self._answer()
                told = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nRetry-After: 1\r\nContent-Length: %d\r\n\r\n"
                writer.write(told % (status, len(body)) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self) -> tuple[bytes, bytes]:
        if self._file is not None and self._busy >= int(self._file.read_text()):
            return b"429 Too Many Requests", FULL
        self._busy += 1
        try:
            if self._seconds:
                await asyncio.sleep(self._seconds)
        finally:
            self._busy -= 1
        return b"200 OK", ANSWER


class Flaky:
    """The service, but it answers 429 to each third request, and dies in the middle of one, once: when it has lived
    long enough to leave a file behind that says so."""

    def __init__(self, app: Any, died: Path, dies_at: int) -> None:
        self._app = app
        self._died = died
        self._dies_at = dies_at
        self._num_asked = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/caption":
            await self._app(scope, receive, send)
            return
        self._num_asked += 1
        if self._num_asked == self._dies_at and not self._died.exists():
            self._died.touch()
            os._exit(1)
        if self._num_asked % 3:
            await self._app(scope, receive, send)
            return
        headers = [(b"content-type", b"application/problem+json"), (b"retry-after", b"1")]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": FULL})


if __name__ == "__main__":
    name, port, *words = sys.argv[1:]
    match name:
        case "quick":
            asyncio.run(Quick().serve(int(port)))
        case "narrow":
            asyncio.run(Quick(Path(words[0]), float(words[1])).serve(int(port)))
        case "flaky":
            served = Flaky(create_app(Settings()), Path(words[0]), int(words[1]))
            uvicorn.run(served, port=int(port), log_level="warning")
