"""The real server process over the fake, which obeys lines on stdin: `hold`, `wait` (for a held call), `go` (that one),
`release`, and `load`, before which the models of the profile `late` are not there."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import ExitStack

from app.server import serve
from app.settings import Settings
from app.start.listener import listen
from models.base import ServedModel
from models.fake.runner import FakeRunner, fake_models

heads = FakeRunner("fake-heads")
loaded = threading.Event()


def obey() -> None:
    stack = ExitStack()
    for line in sys.stdin:
        match line.strip():
            case "hold":
                hold = stack.enter_context(heads.held())
            case "wait":
                hold.entered()
            case "go":
                hold.let_one_go()
            case "release":
                stack.close()
            case "load":
                loaded.set()
        print(line.strip(), flush=True)


def load(settings: Settings) -> list[ServedModel]:
    if settings.profile == "broken":
        raise RuntimeError("the checkpoint is missing:\n  /nowhere")
    if settings.profile == "slow":
        time.sleep(1000)
    if settings.profile == "late":
        loaded.wait()
    return fake_models(heads=heads)


if __name__ == "__main__":
    threading.Thread(target=obey, daemon=True).start()
    settings = Settings()
    sys.exit(serve(settings, listen(settings.host, settings.port), load))
