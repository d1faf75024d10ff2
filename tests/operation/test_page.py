"""The page at / in a real Chromium: every tab by every way in, wide and narrow, light and dark, with keys and without,
and by a service that loads, is slow, is full or stops. Nothing is asked of another host, no policy is violated, nothing
is logged as an error, and axe finds nothing serious. Screenshots of each tab are left in build/page."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from bench.service import RunningService, free_port, running_service
from tests.app.test_demo_things import SAID
from tests.app.test_server import start
from tests.operation.browsing import chromium
from tests.operation.support import EXAMPLE

pytestmark = pytest.mark.timeout(600)
SHOTS = Path("build/page")
MOST_SHOT_BYTES = 200_000
SIZES = {"wide": (1280, 860), "narrow": (360, 740)}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
WAYS = ("choose", "drop", "paste", "camera")
TABS = ("caption", "ask", "match", "classify", "locate", "segment", "detect", "compare")
ANSWERED = {"ask": ".answered", "compare": ".legend"}  # what is there once all is answered; others: .sheet
CAPTION = "a blue circle to the left of a green rectangle"
FORMS = {
    "ask": {"question": "what color is the circle?"},
    "match": {"texts": "a blue circle\na red triangle"},
    "classify": {"labels": "blue circle\nred triangle"},
    "locate": {"target": "a green rectangle"},
    "segment": {"pieces": "a red square\na blue one"},
    "detect": {"things": "a red square\na blue one"},
    "compare": {"compare-question": "how many shapes are there?"},
}
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
"""
GIVE = """
([kind, name, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
  const options = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
  if (kind === "paste") document.body.dispatchEvent(new ClipboardEvent("paste", options));
  else for (const name of ["dragenter", "dragover", "drop"]) document.body.dispatchEvent(new DragEvent(name, options));
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as browser:
        yield browser


@pytest.fixture(scope="module")
def axe() -> str:
    return Path("build/tools/node_modules/axe-core/axe.min.js").read_text()


@dataclass  # without slots: playwright marks the owner of a handler
class Visit:
    """A page that is watched."""

    page: Page
    origin: str
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._asked)

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((f"{self.origin}/", f"blob:{self.origin}/", "data:")):
            self.elsewhere.append(request.url)

    def check(self, *expected: str) -> None:
        """Nothing went wrong, but for what the browser itself tells of an answer (its status) that was provoked."""
        told = [one for one in self.errors if not any(status in one for status in expected)]
        assert told == []
        assert self.elsewhere == []
        assert self.page.evaluate("violations") == []

    def answer(self, tab: str) -> Locator:
        return self.page.locator(f"#answer-{tab} {ANSWERED.get(tab, '.sheet')}")

    def give(self, way: str, picture: bytes = EXAMPLE) -> None:
        """The picture, in one of the ways that people have."""
        if way == "choose":
            self.page.set_input_files("#file", {"name": "it.png", "mimeType": "image/png", "buffer": picture})
        elif way == "camera":
            self.page.locator("[data-camera]:visible").click()
            self.page.locator("#shutter:enabled").click()
        else:
            self.page.evaluate(GIVE, [way, "it.png", list(picture)])
        self.page.locator("#shown").wait_for()

    def ask(self, tab: str) -> Locator:
        """Of the tab, by its form; its answer."""
        self.page.click(f"#tab-{tab}")
        for name, value in FORMS.get(tab, {}).items():
            self.page.fill(f"#{name}", value)
        self.page.click(f"#form-{tab} .primary")
        self.answer(tab).first.wait_for()
        return self.answer(tab)

    def served(self) -> list[str]:
        """The tabs that are there: those of what the service has."""
        self.page.locator("#model option[value]").first.wait_for(state="attached")
        return [tab for tab in TABS if self.page.locator(f"#tab-{tab}").is_visible()]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    with ExitStack() as stack:

        def visit(url: str, size: str = "wide", scheme: Literal["light", "dark"] = "light", script: str = "") -> Visit:
            width, height = SIZES[size]
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            context.set_default_timeout(60_000)
            context.add_init_script(WATCH + script)
            stack.callback(context.close)
            page = context.new_page()
            visited = Visit(page, re.match(r"https?://[^/]+", url)[0])  # type: ignore[index]
            page.goto(url)
            return visited

        yield visit


Visiting = Callable[..., Visit]
Figure = Callable[[str], None]

# --- every tab ---


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES)
def test_every_tab_as_people_see_it(
    demo: RunningService, visit: Visiting, axe: str, size: str, scheme: Literal["light", "dark"], figure: Figure
) -> None:
    there = visit(demo.url, size, scheme, axe)
    served = there.served()
    there.page.locator("#examples button").nth(3).wait_for()
    look(there, f"empty-{size}-{scheme}")
    there.page.locator("[data-example=dog-and-pizza]").click()
    for tab in served:
        there.page.click(f"#tab-{tab}")
        if tab == "ask":
            for suggestion in range(2):
                there.page.locator("#suggestions button:visible").first.click()
                there.answer(tab).nth(suggestion).wait_for()
        elif tab != "caption":
            there.page.click(f"#form-{tab} .primary")
        there.answer(tab).first.wait_for()
        look(there, f"{tab}-{size}-{scheme}")
    there.page.click("#tab-caption")
    for summary in there.page.locator("#panel-caption summary").all():
        summary.click()
    look(there, f"open-{size}-{scheme}")
    there.check()
    figure(f"{size}, {scheme}: {', '.join(served)}: axe finds nothing serious, nothing reaches past the side")


def look(there: Visit, name: str) -> None:
    """It fits, is accessible, and is photographed."""
    there.page.wait_for_timeout(700)  # bars have grown
    assert there.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
    found = there.page.evaluate("axe.run().then(({ violations }) => violations)")
    serious = [
        (one["id"], [node["html"] for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == [], name
    SHOTS.mkdir(parents=True, exist_ok=True)
    there.page.mouse.move(0, 0)
    shot = there.page.screenshot(path=SHOTS / f"{name}.png", full_page=there.page.viewport_size["width"] < 500)
    assert len(shot) <= MOST_SHOT_BYTES, name


@pytest.mark.parametrize("way", WAYS)
def test_every_tab_by_every_way_in(demo: RunningService, visit: Visiting, way: str, figure: Figure) -> None:
    there = visit(f"{demo.url}/#caption?model=demo")
    served = there.served()
    for tab in served:
        there.page.click(f"#tab-{tab}")
        there.give(way)
        there.ask(tab)
        if way != "camera" and tab == "caption":
            expect(there.answer(tab).locator(".said")).to_have_text(CAPTION)
    there.check()
    figure(f"{way}: {', '.join(served)} answered")


def test_it_is_small_and_there_at_once(demo: RunningService, visit: Visiting, figure: Figure) -> None:
    there = visit(demo.url)
    there.page.locator("#examples button").nth(3).wait_for()
    there.page.evaluate('Promise.all([...document.querySelectorAll("#examples img")].map((one) => one.decode()))')
    files: list[list[Any]] = there.page.evaluate(
        """[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
        .filter(({ name }) => name === location.href.split("#")[0] || name.includes("/ui/"))
        .map(({ name, decodedBodySize }) => [name, decodedBodySize])"""
    )
    assert {"/", "/ui/main.js", "/ui/page.css", "/ui/examples"} <= {name.removeprefix(demo.url) for name, _ in files}
    sizes: dict[str, int] = dict(reversed(files))  # of / the page, which came first, not what it tells programs
    num_bytes = sum(sizes.values())
    assert num_bytes <= 100_000
    painted = there.page.evaluate('performance.getEntriesByName("first-contentful-paint")[0].startTime')
    there.check()
    figure(f"the page: {num_bytes} bytes in {len(sizes)} files, first paint after {painted:.0f} ms")


def test_it_begins_with_what_the_models_know(demo: RunningService, visit: Visiting, figure: Figure) -> None:
    """An example chooses the model that knows it; a person's own choice stays where it can be."""
    there = visit(demo.url)
    there.served()
    model, said = there.page.locator("#model"), there.answer("caption").locator(".said")
    expect(model).to_have_value("demo-things")
    expect(there.page.locator("#model-note")).to_contain_text("drawings, not photos")
    for name, caption in SAID.items():
        there.page.click(f"[data-example={name}]")
        expect(said).to_have_text(caption)
    there.page.click("[data-example=circle-and-rectangle]")
    expect(said).to_have_text(CAPTION)
    expect(model).to_have_value("demo")
    there.page.select_option("#model", "demo-blip2")
    there.page.click("#tab-ask")
    expect(model).to_have_value("demo-blip2")
    there.page.click("#tab-segment")
    expect(model).to_have_value("demo-things-clipseg")
    there.page.reload()
    expect(model).to_have_value("demo-things-clipseg")
    there.check()
    figure(f"the first screen: demo-things, which knows drawings; {', '.join(SAID.values())}")


def test_the_keyboard_alone(demo: RunningService, visit: Visiting) -> None:
    there = visit(demo.url)
    served = there.served()
    there.page.focus("[data-example=circle-and-rectangle]")
    there.page.keyboard.press("Enter")
    there.answer("caption").wait_for()
    there.page.focus("#tab-caption")
    for tab in (*served[1:], served[0]):
        there.page.keyboard.press("ArrowRight")
        expect(there.page.locator(f"#tab-{tab}")).to_be_focused()
        expect(there.page.locator(f"#panel-{tab}")).to_be_visible()
    there.page.keyboard.press("End")
    expect(there.page.locator(f"#tab-{served[-1]}")).to_be_focused()
    there.page.keyboard.press("Home")
    there.page.keyboard.press("ArrowRight")
    there.page.keyboard.press("Tab")
    expect(there.page.locator("#question")).to_be_focused()
    there.page.keyboard.type("what color is the circle?")
    there.page.keyboard.press("Enter")
    expect(there.answer("ask").locator(".said")).to_have_text("blue")
    there.check()


# --- what is sent ---


def test_a_large_picture_is_sent_small_and_upright(demo: RunningService, visit: Visiting, figure: Figure) -> None:
    there = visit(demo.url)
    there.served()
    lying = Image.new("RGB", (4000, 3000), "blue")
    lying.paste("red", (0, 0, 2000, 3000))
    exif = lying.getexif()
    exif[0x0112] = 6  # to be turned by a quarter: upright, red is above
    buffer = io.BytesIO()
    lying.save(buffer, "JPEG", exif=exif)
    photo = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": buffer.getvalue()}
    there.page.set_input_files("#file", photo)
    there.answer("caption").wait_for()
    there.page.locator("#answer-caption summary", has_text="As code").click()
    with there.page.expect_download() as download:
        there.page.locator("#answer-caption a[download]").click()
    sent = download.value.path().read_bytes()
    image = Image.open(io.BytesIO(sent))
    assert image.size == (768, 1024)
    pixels = image.convert("RGB")
    above, below = pixels.getpixel((384, 256)), pixels.getpixel((384, 768))
    assert (above[0] > 200, below[2] > 200) == (True, True)  # type: ignore[index]
    there.check()
    figure(f"a photo of 4000 x 3000, {len(buffer.getvalue())} bytes: sent as {image.size}, {len(sent)} bytes, upright")


def test_the_code_asks_for_the_same(visit: Visiting, tmp_path: Path, figure: Figure) -> None:
    """What is copied is run, in an empty folder that has the picture alone."""
    with running_service(profile="demo-shapes", api_keys="secret") as service:
        there = visit(service.url)
        use_key(there, "secret")
        there.give("choose")
        there.page.fill("#prompt", "it's a")
        there.page.locator("#form-caption summary").click()
        there.page.fill("#num-captions", "2")
        copied(there, "caption", tmp_path, figure)
        there.page.click("#tab-ask")
        there.page.select_option("#model", "demo-blip2")
        for question in ("what is to the left of the green rectangle?", "and where is that one?"):
            there.page.fill("#question", question)
            there.page.press("#question", "Enter")
            there.page.locator(".asked", has_text=question).locator("..").locator(".answered").wait_for()
        copied(there, "ask", tmp_path, figure)
        there.check()


def copied(there: Visit, tab: str, folder: Path, figure: Figure) -> None:
    if tab == "caption":
        there.page.click(f"#form-{tab} .primary")
        expect(there.answer(tab).locator(".row")).to_have_count(1)
    there.page.locator(f"#answer-{tab} .foot summary", has_text="As code").click()
    there.page.locator(f"#answer-{tab} .foot summary", has_text="Raw JSON").click()
    curl, python, raw = (one.inner_text() for one in there.page.locator(f"#answer-{tab} .code pre").all())
    assert "secret" not in curl + python
    with there.page.expect_download() as download:
        there.page.locator(f"#answer-{tab} a[download]").click()
    download.value.save_as(folder / "it.png")
    assert (folder / "it.png").read_bytes() == EXAMPLE
    environment = os.environ | {"BLIP_API_KEY": "secret", "PYTHONPATH": ""}
    for name, command in {"curl": ["bash", "-c", curl], "Python": [sys.executable, "-c", python]}.items():
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout) if name == "curl" else eval(done.stdout)  # noqa: S307  # as Python prints it
        assert texts(answer) == texts(json.loads(raw)), name
    figure(f"{tab}: the copied curl and Python get the page's answer: {texts(json.loads(raw))}")


def texts(answer: Any) -> list[str]:
    """Without the confidences, whose last digits depend on the batch."""
    found = re.findall(r'"(?:text|answer)": "([^"]*)"', json.dumps(answer))
    assert found
    return found


@pytest.mark.parametrize("path", ["/blip", "/blip/", "/"])
def test_behind_a_prefix(visit: Visiting, path: str) -> None:
    with running_service(profile="demo-shapes", root_path="/blip") as service:
        there = visit(service.url + path)
        there.served()
        there.give("choose")
        expect(there.answer("caption").locator(".said")).to_have_text(CAPTION)
        there.check()


def test_a_link_shows_the_same_again(demo: RunningService, visit: Visiting) -> None:
    there = visit(f"{demo.url}/#match?model=demo-blip2&example=three-shapes&texts=a+teal+triangle")
    expect(there.answer("match").locator(".row")).to_have_count(1)
    expect(there.page.locator("#model")).to_have_value("demo-blip2")
    there.page.fill("#texts", "a brown rectangle")
    there.page.reload()
    expect(there.answer("match").locator(".row")).to_contain_text("a brown rectangle")
    there.check()


# --- keys ---


def use_key(there: Visit, key: str) -> None:
    there.page.fill("#key", key)
    there.page.click("#key-form button")
    there.page.locator("#model option[value]").first.wait_for(state="attached")


def test_a_key_is_asked_for_in_place(visit: Visiting, axe: str, figure: Figure) -> None:
    with running_service(profile="demo-shapes", api_keys="secret") as service:
        there = visit(service.url, "narrow", "light", axe)
        there.page.locator("#key-form").wait_for()
        look(there, "key-narrow-light")
        there.check()
        there.give("choose")  # it waits
        there.page.fill("#key", "wrong")
        there.page.click("#key-form button")
        expect(there.page.locator("#key-problem")).to_contain_text("does not know this key")
        use_key(there, "secret")
        expect(there.answer("caption").locator(".said")).to_have_text(CAPTION)
        there.page.reload()
        there.served()
        expect(there.page.locator("#key-form")).to_be_hidden()
        assert "secret" not in there.page.content() + there.page.url
        assert there.page.evaluate("JSON.stringify(localStorage) + document.cookie") == "{}"
        there.check("401")
    figure("keys: asked for in place, a wrong one told, kept for the session, in no code, address or cookie")


# --- a service that is not as one would like ---


def test_it_waits_for_the_models_and_goes_on(visit: Visiting, axe: str, figure: Figure) -> None:
    with start(BLIP_PROFILE="late") as server:
        there = visit(server.url, "wide", "light", axe)
        expect(there.page.locator("#notice")).to_contain_text("models are loading")
        there.give("choose")
        expect(there.page.locator("#answer-caption .wait")).to_contain_text("as soon as the models")
        look(there, "loading-wide-light")
        server.tell("load")
        expect(there.answer("caption").locator(".said")).to_have_text(re.compile("picture"))
        expect(there.page.locator("#notice")).to_be_hidden()
        there.check()
    figure("models that load: told, and what was asked is answered once they are there")


def test_a_slow_answer_can_be_cancelled(visit: Visiting, axe: str, figure: Figure) -> None:
    with start() as server:
        there = visit(server.url, "wide", "light", axe)
        there.served()
        server.tell("hold")
        there.give("choose")
        server.tell("wait")
        expect(there.page.locator("#answer-caption .wait .hint")).to_have_text(re.compile(r"^[2-9] s$"))
        look(there, "slow-wide-light")
        there.page.locator("#answer-caption button", has_text="Cancel").click()
        expect(there.page.locator("#answer-caption .wait")).to_have_count(0)
        there.page.click("#form-caption .primary")
        server.tell("release")
        there.answer("caption").wait_for()
        there.check()
    figure("a slow answer: told how long, cancelled, asked again")


@contextmanager
def waiting_request(url: str) -> Iterator[None]:
    """Sent in the beginning, answered at the end."""
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(httpx.post, f"{url}/caption", files={"image": EXAMPLE}, timeout=60)
        yield
        assert answer.result().status_code == 200


def test_a_full_service_is_asked_again_when_it_says(visit: Visiting, axe: str, figure: Figure) -> None:
    with start(BLIP_MAX_QUEUE_ITEMS="1") as server, httpx.Client(base_url=server.url) as client:
        server.until_ready(client)
        there = visit(server.url, "wide", "dark", axe)
        there.served()
        server.tell("hold")
        with waiting_request(server.url):
            server.tell("wait")  # it is on the device, and the next one in the queue
            with waiting_request(server.url):
                while "\nblip_queue_items 1.0" not in client.get("/metrics").text:
                    pass
                there.give("choose")
                expect(there.page.locator("#answer-caption .wait")).to_contain_text("The service is full")
                expect(there.page.locator("#answer-caption .wait .hint")).to_have_text(re.compile(r"^in \d s$"))
                look(there, "full-wide-dark")
                server.tell("release")
                there.answer("caption").wait_for()
        assert any("429" in one for one in there.errors)
        there.check("429")
    figure("a full service: 429 told with its seconds, asked again by itself, answered")


def test_it_outlives_a_service_that_stops(visit: Visiting, axe: str, figure: Figure) -> None:
    port = str(free_port())
    with start(BLIP_PORT=port) as server:
        there = visit(server.url, "narrow", "dark", axe)
        there.served()
        server.tell("hold")
        with waiting_request(server.url):
            server.tell("wait")
            server.process.send_signal(signal.SIGTERM)
            while httpx.get(server.url).json()["phase"] != "draining":
                pass
            there.give("choose")
            expect(there.page.locator("#answer-caption .wait")).to_contain_text("is stopping")
            look(there, "draining-narrow-dark")
            server.tell("release")
        server.process.wait(30)
        expect(there.page.locator("#answer-caption .wait")).to_contain_text("does not answer")
    with start(BLIP_PORT=port):
        there.answer("caption").wait_for()
        there.check("503", "ERR_")
    figure("a service that stops: told; what was asked is answered by the next one")


def test_what_goes_wrong_is_told_in_place(demo: RunningService, visit: Visiting, axe: str) -> None:
    there = visit(demo.url, "narrow", "light", axe)
    there.served()
    there.page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"})
    expect(there.page.locator("#picture-problem")).to_have_text("notes.txt is not a picture.")
    broken = {"name": "broken.tiff", "mimeType": "image/tiff", "buffer": b"II*\0 no picture"}
    there.page.set_input_files("#file", broken)
    expect(there.page.locator("#no-preview")).to_be_visible()
    expect(there.page.locator("#answer-caption .note")).to_contain_text("For the operator: request ")
    look(there, "error-narrow-light")
    there.check("415", "422")
