"""Which files of ours one /caption enters, and how often it moves between them: `python -m bench.steps`."""

from __future__ import annotations

import asyncio
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from app.main import create_app
from app.settings import Settings

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "models" / "checkpoints" / "demo" / "example.png"


@dataclass(slots=True)
class Steps:
    """Counts calls of functions under app/ and models/, on every thread that was started since."""

    files: set[str] = field(default_factory=set)
    moves: int = 0  # from one file to another, on the thread of the event loop
    counting: bool = False
    _last: str = ""

    def profile(self, frame: FrameType, event: str, _: Any) -> None:
        if not self.counting or event != "call":
            return
        path = Path(frame.f_code.co_filename)
        if not path.is_relative_to(ROOT) or path.relative_to(ROOT).parts[0] not in ("app", "models"):
            return
        file = str(path.relative_to(ROOT))
        self.files.add(file)
        if threading.current_thread() is threading.main_thread():
            self.moves += file != self._last
            self._last = file


async def one_caption(steps: Steps) -> None:
    app = create_app(Settings(threads=1))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://here", timeout=60) as client,
    ):
        while (await client.get("/health/ready")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        picture = PICTURE.read_bytes()
        steps.counting = True
        response = await client.post("/caption", files={"image": ("example.png", picture, "image/png")})
        steps.counting = False
        response.raise_for_status()


def trace() -> Steps:
    steps = Steps()
    threading.setprofile(steps.profile)
    sys.setprofile(steps.profile)
    try:
        asyncio.run(one_caption(steps))
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return steps


if __name__ == "__main__":
    found = trace()
    print("\n".join(sorted(found.files)))
    print(f"{len(found.files)} files, {found.moves} moves between files on the event loop")
