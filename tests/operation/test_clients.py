"""Clients that people have, as they are: each posts a picture with a Chinese name, and gets its answer."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp
import pytest
import requests

from bench.service import running_service
from tests.operation.conftest import Run, tool

CLIENTS = Path(__file__).parent / "clients"
DEMO = Path("models/checkpoints/demo/example.png")
QUESTION = "what color is the circle?"
CAPTION = "a blue circle to the left of a green rectangle"
NAME = "图片.png"  # picture.png


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_service() as service:
        yield service.url


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return Path(shutil.copy(DEMO, tmp_path / NAME))


def check(client: str, told: str, expected: str, figure: Callable[[str], None]) -> None:
    assert expected in told, told
    figure(f"{client}: {expected}")


def test_curl(url: str, picture: Path, run: Run, figure: Callable[[str], None]) -> None:
    form = run("curl", "-sS", "-F", f"image=@{picture}", "-F", f"question={QUESTION}", f"{url}/vqa")
    check("curl -F", form, '"answer":"blue"', figure)
    raw = run("curl", "-sS", "--data-binary", f"@{picture}", f"{url}/caption")
    check("curl --data-binary", raw, CAPTION, figure)
    sent = run("curl", "-sS", "-T", picture, "-X", "POST", f"{url}/caption")
    check("curl -T", sent, CAPTION, figure)


def test_wget(url: str, picture: Path, run: Run, figure: Callable[[str], None]) -> None:
    check("wget --post-file", run("wget", "-qO-", f"--post-file={picture}", f"{url}/caption"), CAPTION, figure)


def test_node(url: str, picture: Path, run: Run, figure: Callable[[str], None]) -> None:
    check("fetch of Node", run("node", CLIENTS / "node.mjs", url, picture), '"answer":"blue"', figure)


def test_jdk(url: str, run: Run, figure: Callable[[str], None]) -> None:
    check("HttpClient of the JDK", run("java", CLIENTS / "Jdk.java", url, DEMO), '"answer":"blue"', figure)


def test_requests(url: str, picture: Path, figure: Callable[[str], None]) -> None:
    with picture.open("rb") as file:
        answer = requests.post(f"{url}/vqa", files={"image": file}, data={"question": QUESTION}, timeout=30)
    check("requests, files=", answer.text, '"answer":"blue"', figure)
    check("requests, data=", requests.post(f"{url}/caption", data=DEMO.read_bytes(), timeout=30).text, CAPTION, figure)


def test_aiohttp(url: str, picture: Path, figure: Callable[[str], None]) -> None:
    data = picture.read_bytes()

    async def post(quote: bool) -> str:
        form = aiohttp.FormData(quote_fields=quote)
        form.add_field("image", data, filename=picture.name)
        form.add_field("question", QUESTION)
        async with aiohttp.ClientSession() as session, session.post(f"{url}/vqa", data=form) as answer:
            return await answer.text()

    for quote in (True, False):
        check(f"aiohttp, quote_fields={quote}", asyncio.run(post(quote)), '"answer":"blue"', figure)


# --- a browser ---


class EmptyPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>a page</title>")

    def log_message(self, *_: object) -> None: ...


@contextmanager
def page() -> Iterator[str]:
    """Its origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), EmptyPage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.fixture
def browse(run: Run, picture: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], str]:
    """Opens a page, posts from there to a service with a key, and returns what came of it."""
    monkeypatch.setenv("NODE_PATH", "build/tools/node_modules")
    monkeypatch.setenv("CHROMIUM", tool("chromium"))
    return lambda address, url, key: run("node", CLIENTS / "browser.cjs", address, url, key, picture)


def test_a_page_of_an_allowed_origin(browse: Callable[[str, str, str], str], figure: Callable[[str], None]) -> None:
    with page() as origin, running_service(cors_origins=origin, api_keys="secret") as service:
        told = browse(origin, service.url, "secret")
        assert told.startswith("200 with an id: ")
        check("a page in Chromium, its origin allowed", told, CAPTION, figure)
        check("the same with a wrong key", browse(origin, service.url, "wrong"), "401 with an id: ", figure)
        with page() as other:
            check("a page of another origin", browse(other, service.url, "secret"), "refused: Failed to fetch", figure)


def test_a_page_without_the_setting(browse: Callable[[str, str, str], str], figure: Callable[[str], None]) -> None:
    with page() as origin, running_service(api_keys="secret") as service:
        told = browse(origin, service.url, "secret")
        check("a page, no origin allowed", told, "refused: Failed to fetch", figure)


@pytest.mark.parametrize("prefix", ["", "/blip"])
def test_docs_in_a_browser(prefix: str, browse: Callable[[str, str, str], str], figure: Callable[[str], None]) -> None:
    with running_service(api_keys="secret", root_path="/blip") as service:
        told = browse(f"{service.url}{prefix}/docs", "-", "secret")
        assert told.startswith("200 after ")
        assert '"alternatives": [\n        {' in told
        assert told.count("\n200 after ") == 2
        assert '"object": "chat.completion"' in told
        assert '"id": "demo:vqa"' in told
        check(f"{prefix}/docs in Chromium", told, CAPTION, figure)
