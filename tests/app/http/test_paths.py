"""Behind a proxy: with its prefix, stripped or not."""

from __future__ import annotations

import pytest
from starlette.types import Scope

from app.http.paths import route_path, routed
from app.settings import Settings
from tests.app.support import FIELDS, PNG, RED, ROUTES, TASKS, kind, lab, run
from tests.app.test_chat import CHAT, talk


def scope(path: str, root_path: str = "", method: str = "GET") -> Scope:
    return {"type": "http", "method": method, "path": path, "root_path": root_path}


@pytest.mark.parametrize(
    ("prefix", "path", "expected"),
    [
        ("", "/vqa", "/vqa"),
        ("/blip", "/vqa", "/vqa"),
        ("/blip", "/blip/vqa", "/vqa"),
        ("/blip", "/blip", "/"),
        ("/blip", "/blip/", "/"),
        ("/blip", "/blip2/vqa", "/blip2/vqa"),
        ("/a/b", "/a/b/vqa", "/vqa"),
        ("/a/b", "/a/vqa", "/a/vqa"),
    ],
)
def test_a_prefix_may_be_there_or_not(prefix: str, path: str, expected: str) -> None:
    request = routed(scope(path), prefix)
    assert (route_path(request), request["root_path"]) == (expected, prefix)
    assert route_path(routed(scope(path, root_path=prefix), "")) == expected  # as from uvicorn --root-path


def test_the_server_still_sees_its_own_scope() -> None:
    own = scope("/vqa", method="HEAD")
    assert routed(own, "/blip")["method"] == "GET"
    assert own == scope("/vqa", method="HEAD")


@pytest.mark.parametrize(
    ("given", "prefix"), [("/blip", "/blip"), ("blip/", "/blip"), ("/a/b/", "/a/b"), ("/", ""), ("", "")]
)
def test_the_setting(given: str, prefix: str) -> None:
    assert Settings(root_path=given).root_path == prefix


@pytest.mark.parametrize("prefix", ["", "/blip"])
def test_everything_is_served_with_and_without_the_prefix(prefix: str) -> None:
    async def test() -> None:
        async with lab(root_path="/blip", api_keys="secret") as there:
            client, key = there.client, {"X-API-Key": "secret"}
            for path in TASKS:
                answer = await client.post(prefix + path, content=RED, headers=PNG | key, params=FIELDS[path])
                assert answer.status_code == 200
                assert kind(await client.get(prefix + path, headers=key)) == (405, "method-not-allowed")
                assert there.count("requests_total", task=path[1:], model="fake", code="200")
            for path in ROUTES:
                assert (await client.get(prefix + path, headers=key)).status_code == 200
            for path in ("/health/live", "/docs", "/openapi.json"):
                assert (await client.get(prefix + path)).status_code == 200
            assert kind(await client.get(prefix + "/models")) == (401, "unauthorized")
            told = (await client.get(prefix + "/vqa/", headers=key)).json()["detail"]
            assert told.endswith("nearest one is /blip/vqa")
            answer = await client.post(prefix + CHAT, json=talk(), headers=key)
            assert answer.json()["choices"][0]["message"]["content"] == "a red picture"
            error = (await client.get(prefix + "/v1/modelz", headers=key)).json()["error"]
            assert error["code"] == "unknown_route"
            assert error["message"].endswith("nearest one is /blip/v1/models")
            openapi = (await client.get(prefix + "/openapi.json")).json()
            assert openapi["servers"] == [{"url": "/blip"}]

    run(test)


def test_no_prefix_no_servers() -> None:
    async def test() -> None:
        async with lab() as there:
            assert "servers" not in (await there.client.get("/openapi.json")).json()
            assert kind(await there.client.get("/blip/models")) == (404, "unknown-route")

    run(test)
