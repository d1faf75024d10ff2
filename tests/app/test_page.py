"""The page at /: how it is served, and that its files fit each other and the service."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from models.base import ServedModel
from models.fake.runner import fake_models
from tests.app.conftest import Shared
from tests.app.support import kind, lab, run, serving, until_ready

FOLDER = Path(__file__).parents[2] / "app" / "page"
PAGE = (FOLDER / "index.html").read_text()
STYLE = (FOLDER / "page.css").read_text()
SCRIPTS = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.js"))}
SCRIPT = "\n".join(SCRIPTS.values())
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())
PEOPLE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
MOST_BYTES = 100_000  # of the whole page
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob: data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}


class Tags(HTMLParser):
    """Every tag of the page, with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, {name: value or "" for name, value in attrs}))


def tags() -> list[tuple[str, dict[str, str]]]:
    parser = Tags()
    parser.feed(PAGE)
    return parser.all


def values(attribute: str) -> list[str]:
    return [one[attribute] for _, one in tags() if attribute in one]


# --- how it is served ---


@pytest.mark.parametrize("path", ["/", "/ui/examples", *(f"/ui/{name}" for name in FILES if name != "index.html")])
def test_each_file_has_its_policy_and_is_sent_once(shared: Shared, path: str) -> None:
    response = shared.get(path, headers=PEOPLE)
    assert response.status_code == 200
    policy = dict(one.split(" ", 1) for one in response.headers["content-security-policy"].split("; "))
    assert policy == POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-cache"
    again = shared.get(path, headers=PEOPLE | {"If-None-Match": f'"other", W/{response.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == response.headers["etag"]
    assert again.headers["content-security-policy"] == response.headers["content-security-policy"]
    assert shared.get(path, headers=PEOPLE | {"If-None-Match": '"other"'}).status_code == 200
    head = shared.request("HEAD", path, headers=PEOPLE)
    assert (head.status_code, head.headers["etag"]) == (200, response.headers["etag"])


def test_types(shared: Shared) -> None:
    kinds = {
        path: shared.get(path, headers=PEOPLE).headers["content-type"] for path in ("/", "/ui/main.js", "/ui/page.css")
    }
    assert kinds == {
        "/": "text/html; charset=utf-8",
        "/ui/main.js": "text/javascript; charset=utf-8",
        "/ui/page.css": "text/css; charset=utf-8",
    }
    assert shared.get("/", headers=PEOPLE).text == PAGE


@pytest.mark.parametrize(
    "path", ["/ui/", "/ui/nothing.js", "/ui/../settings.py", "/ui/%2e%2e/settings.py", "/ui//etc/passwd"]
)
def test_nothing_else_is_served(shared: Shared, path: str) -> None:
    assert kind(shared.get(path)) == (404, "unknown-route")


def test_programs_get_links_and_the_state(shared: Shared) -> None:
    answer = shared.get("/", headers={"Accept": "application/json"})
    assert (answer.headers["vary"], answer.headers["cache-control"]) == ("Accept", "no-store")
    assert (answer.json()["phase"], answer.json()["needs_key"]) == ("ready", False)
    assert shared.get("/", headers=PEOPLE).headers["vary"] == "Accept"


def test_it_is_there_while_the_models_load() -> None:
    async def test() -> None:
        loaded = threading.Event()

        def load(_: Settings) -> list[ServedModel]:
            loaded.wait()
            return fake_models()

        async with serving(load) as (client, _):
            try:
                assert (await client.get("/", headers=PEOPLE)).text == PAGE
                assert (await client.get("/")).json()["phase"] == "loading"
            finally:
                loaded.set()
            await until_ready(client)
            assert (await client.get("/")).json()["phase"] == "ready"

    run(test)


def test_with_keys_it_is_open_and_names_no_model() -> None:
    async def test() -> None:
        async with lab(api_keys="secret") as there:
            for path in ("/", *(f"/ui/{name}" for name in FILES if name != "index.html"), "/ui/examples"):
                response = await there.client.get(path, headers=PEOPLE)
                assert response.status_code == 200
                assert b"secret" not in response.content
            links = await there.client.get("/")
            assert links.json()["needs_key"] is True
            assert not re.search("fake|secret", links.text)
            assert (await there.client.get("/models")).status_code == 401

    run(test)


def test_it_can_be_switched_off() -> None:
    async def test() -> None:
        async with lab(ui=False) as there:
            for path in ("/", "/ui/main.js", "/ui/examples"):
                assert kind(await there.client.get(path, headers=PEOPLE)) == (404, "unknown-route")
            assert (await there.client.get("/")).json()["docs"] == "/docs"

    run(test)


@pytest.mark.parametrize("prefix", ["/blip", "/a/blip"])
def test_under_a_prefix(prefix: str) -> None:
    async def test() -> None:
        async with lab(root_path=prefix) as there:
            bare = await there.client.get(prefix, headers=PEOPLE)
            assert bare.status_code == 307
            assert bare.url.join(bare.headers["location"]).path == f"{prefix}/"
            for path in (f"{prefix}/", "/"):  # as a proxy passes it on, or strips it
                assert (await there.client.get(path, headers=PEOPLE)).text == PAGE
                assert (await there.client.get(f"{path}ui/main.js")).text == SCRIPTS["main.js"]

    run(test)


# --- its parts fit each other ---


def test_it_is_small() -> None:
    sizes = {name: (FOLDER / name).stat().st_size for name in FILES}
    assert sum(sizes.values()) <= MOST_BYTES, sizes


def test_every_file_is_used() -> None:
    everything = PAGE + STYLE + SCRIPT + (FOLDER / "examples.json").read_text()
    for name in FILES:
        assert name in ("index.html", "examples.json") or Path(name).name in everything, name
    for target in re.findall(r'from "\./([^"]+)"', SCRIPT):
        assert target in SCRIPTS


def test_what_the_scripts_look_for_exists() -> None:
    ids = values("id")
    assert len(ids) == len(set(ids))
    names = set(re.findall(r'(?:\$|getElementById)\("([\w-]+)"\)', SCRIPT))
    assert len(names) > 30
    assert names <= set(ids)
    tabs = [tag_id.removeprefix("tab-") for tag_id in ids if tag_id.startswith("tab-")]
    assert tabs == ["caption", "ask", "match", "classify", "locate", "segment", "detect", "compare"]
    for part in re.findall(r"\$\(`([\w-]+)-\$\{tab\}`\)", SCRIPT):
        assert {f"{part}-{tab}" for tab in tabs} <= set(ids)
    attributes = {name for _, one in tags() for name in one}
    for attribute in re.findall(r"\[(data-[\w-]+)\]", SCRIPT):
        assert attribute in attributes | {"data-example"}  # which the script gives itself


def test_what_the_page_refers_to_exists() -> None:
    ids = set(values("id"))
    for attribute in ("for", "aria-controls", "aria-labelledby", "aria-describedby"):
        assert set(values(attribute)) <= ids
    classes = {name for text in values("class") for name in text.split()}
    classes |= {name for text in re.findall(r'class: "([^"]+)"', SCRIPT) for name in text.split()}
    styled = set(re.findall(r"\.([a-z][\w-]*)", STYLE))
    assert classes - styled == set(), "without a style"


def test_every_endpoint_and_field_is_the_services(shared: Shared) -> None:
    openapi = shared.get("/openapi.json").json()
    asked = set(re.findall(r'\bpath: "(\w+)"', SCRIPT)) | set(re.findall(r'\["(\w+)", form\(', SCRIPT))
    served = {path.strip("/") for path, methods in openapi["paths"].items() if "post" in methods}
    assert {"caption", "vqa", "match", "classify", "localize", "segment", "detect"} <= asked
    assert asked <= served
    assert set(re.findall(r'fetch\("([^"]+)"', SCRIPT)) == {"./", "models", "ui/examples"}
    for path, names in {
        "caption": ("prompt", "num_captions", "max_new_tokens", "num_beams", "sample", "temperature", "seed"),
        "vqa": ("question", "candidates", "history"),
        "match": ("text",),
        "segment": ("text",),
        "detect": ("text", "threshold"),
    }.items():
        content = openapi["paths"][f"/{path}"]["post"]["requestBody"]["content"]["application/json"]
        for name in (*names, "model", "image"):
            assert re.search(rf"\b{name}\b", SCRIPT), name
            assert name in content["schema"]["properties"], name


# --- it loads nothing else, and runs nothing else ---


def test_every_tab_goes_by_a_task_that_models_tell(shared: Shared) -> None:
    """And by that alone: a model that matches need not localise."""
    named = set(re.findall(r'\btask: "(\w+)"', SCRIPT))
    assert named == {"caption", "vqa", "match", "localize", "segment", "detect"}
    assert named <= shared.get("/models").json()["models"][0]["tasks"].keys()
    assert "const can = (model, { task }) => Boolean(model.tasks[task]);" in SCRIPT


def test_every_address_is_relative_and_ours() -> None:
    for address in (*values("href"), *values("src")):
        assert re.fullmatch(r"\./|docs|ui/[\w.-]+", address), address
        assert address in ("./", "docs") or address.removeprefix("ui/") in FILES
    everything = PAGE + STYLE + SCRIPT + (FOLDER / "examples.json").read_text()
    assert not re.search(r"https?:|[\"'(]//|@import|\burl\(", everything)


def test_no_text_becomes_markup_or_code() -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", SCRIPT)
    assert not [name for _, one in tags() for name in one if name == "style" or name.startswith("on")]
    assert [tag for tag, one in tags() if tag == "script" and "src" not in one] == []
    assert "console." not in SCRIPT


def test_the_key_is_kept_in_the_session_and_never_in_code() -> None:
    assert "localStorage" not in SCRIPT
    assert {name for name, text in SCRIPTS.items() if "sessionStorage" in text} == {"service.js"}
    assert "$BLIP_API_KEY" in SCRIPTS["code.js"]
    assert "os.environ['BLIP_API_KEY']" in SCRIPTS["code.js"]


# --- examples ---


def examples() -> Iterator[dict[str, Any]]:
    yield from json.loads((FOLDER / "examples.json").read_text())


def test_examples_can_be_asked_about(shared: Shared) -> None:
    assert shared.get("/ui/examples").json() == list(examples())
    used = set(re.findall(r"example\.(\w+)", SCRIPT))
    assert len(list(examples())) >= 3
    for example in examples():
        assert used <= example.keys()
        picture = shared.get(f"/{example['picture']}")
        kind = f"image/{Path(example['picture']).suffix[1:]}"
        assert (picture.status_code, picture.headers["content-type"]) == (200, kind)
        assert shared.post("/caption", files={"image": picture.content}).status_code == 200
        for name in ("questions", "candidates", "texts", "labels"):
            assert len(example[name]) >= 2
            assert all(text == text.strip() != "" for text in example[name])
