"""Clients that people have, as they are: each posts a picture with a Chinese name, and gets its answer."""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp
import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, expect

from bench.service import running_service
from tests.operation.browsing import chromium
from tests.operation.conftest import Run

CLIENTS = Path(__file__).parent / "clients"
DEMO = Path("models/checkpoints/demo/example.png")
QUESTION = "what color is the circle?"
CAPTION = "a blue circle to the left of a green rectangle"
NAME = "图片.png"  # picture.png
POST = """
async ([url, key, name, bytes]) => {
  const form = new FormData();
  form.append("image", new File([new Uint8Array(bytes)], name));
  try {
    const headers = { Authorization: `Bearer ${key}` };
    const response = await fetch(`${url}/caption`, { method: "POST", headers, body: form });
    const id = response.headers.get("X-Request-ID") ? "with" : "without";
    return `${response.status} ${id} an id: ${await response.text()}`;
  } catch (error) {
    return `refused: ${error.message}`;
  }
}
"""


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def browse(browser: Browser, picture: Path) -> Iterator[Callable[[str, str, str], str]]:
    """Opens a page, posts from there to a service with a key, and returns what came of it."""
    opened = browser.new_page()
    data = list(picture.read_bytes())

    def browse(address: str, url: str, key: str) -> str:
        opened.goto(address)
        told: str = opened.evaluate(POST, [url, key, NAME, data])
        return told

    yield browse
    opened.close()


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
def test_docs_in_a_browser(prefix: str, browser: Browser, picture: Path, figure: Callable[[str], None]) -> None:
    with running_service(api_keys="secret", root_path="/blip") as service:
        page = browser.new_page()
        page.goto(f"{service.url}{prefix}/docs")
        page.fill("#key", "secret")
        with _tried(page, "caption") as form:
            form.locator("input[type=file]").set_input_files(picture)
            form.locator("[name=num_captions]").fill("2")
        told = form.locator("output").inner_text()
        assert '"alternatives": [\n        {' in told
        with _tried(page, "v1/chat/completions") as form:
            json = form.locator("[data-json]")
            json.fill(json.input_value().replace("a-model", "demo"))  # with keys no example names one
        assert '"object": "chat.completion"' in form.locator("output").inner_text()
        with _tried(page, "v1/models/{name}") as form:
            form.locator("[name=name]").fill("demo:vqa")
        assert '"id": "demo:vqa"' in form.locator("output").inner_text()
        page.close()
        check(f"{prefix}/docs in Chromium", told, CAPTION, figure)


@contextmanager
def _tried(page: Page, path: str) -> Iterator[Locator]:
    """Its form, to be filled; then it is sent, and answered with 200."""
    form = page.locator(f'form[data-path="{path}"]')
    page.locator("details", has=form).locator("summary").click()
    yield form
    form.locator("button").click()
    expect(form.locator("output")).to_have_text(re.compile("^200 after "))
