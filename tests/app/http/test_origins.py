"""Pages of other origins: preflights, and headers on every answer."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from app.settings import Settings
from tests.app.support import PNG, RED, ROUTES, TASKS, kind, lab, run
from tests.app.test_chat import CHAT, talk

PAGE = "https://page.example"
EXPOSED = "X-Request-ID, Retry-After, Server-Timing, X-Blip-Itm"
OTHERS = (
    "https://page.example.evil.test",
    "https://evil-page.example",
    "http://page.example",
    "https://page.example:8443",
    "https://page.exampl",
    "null",
    "*",
    "",
)
ASKING = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-stainless-os"}


def cors(response: Any) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000"])
def test_a_preflight_needs_no_key(origin: str) -> None:
    async def test() -> None:
        async with lab(cors_origins=f"{PAGE}, http://LOCALHOST:3000", api_keys="secret") as there:
            for path in (*TASKS, *ROUTES):
                response = await there.client.options(path, headers={"Origin": origin} | ASKING)
                assert response.status_code == 200
                assert cors(response) == {
                    "access-control-allow-origin": origin,
                    "access-control-allow-methods": "GET, HEAD, POST",
                    "access-control-allow-headers": ASKING["Access-Control-Request-Headers"],
                    "access-control-max-age": "600",
                    "access-control-expose-headers": EXPOSED,
                }
                assert "Origin" in response.headers["vary"]
                assert {"x-request-id", "server-timing"} <= response.headers.keys()

    run(test)


def test_a_page_may_reach_a_service_in_its_own_network() -> None:
    async def test() -> None:
        async with lab(cors_origins=PAGE) as there:
            headers = {"Origin": PAGE, "Access-Control-Request-Private-Network": "true"} | ASKING
            response = await there.client.options("/caption", headers=headers)
            assert response.headers["access-control-allow-private-network"] == "true"

    run(test)


@pytest.mark.parametrize("origin", OTHERS)
def test_others_are_not_allowed(origin: str) -> None:
    async def test() -> None:
        async with lab(cors_origins=PAGE, api_keys="secret") as there:
            preflight = await there.client.options("/caption", headers={"Origin": origin} | ASKING)
            assert kind(preflight) == (401, "unauthorized")
            answer = await there.client.get("/models", headers={"Origin": origin, "X-API-Key": "secret"})
            assert answer.status_code == 200
            for response in (preflight, answer):
                assert "access-control-allow-origin" not in response.headers
                assert response.headers["vary"] == "Origin"  # or a cache would give it to a page that may

    run(test)


def test_errors_have_the_headers_too() -> None:
    async def test() -> None:
        async with lab(cors_origins=PAGE, api_keys="secret", max_body_bytes=1000) as there:
            origin, key = {"Origin": PAGE}, {"X-API-Key": "secret"}
            client = there.client
            answers = [
                await client.post("/caption", content=RED, headers=PNG | origin | key),
                await client.post("/caption", content=RED[:60], headers=PNG | origin | key),
                await client.post("/caption", content=bytes(1001), headers=PNG | origin | key),
                await client.post("/caption", content=RED, headers=PNG | origin),
                await client.get("/nothing", headers=origin | key),
                await client.delete("/caption", headers=origin | key),
                await client.options("/caption", headers=origin | key),
                await client.post(CHAT, json=talk(num_beams=1, stream=True), headers=origin | key),
                await client.post(CHAT, json={}, headers=origin | key),
            ]
            there.admission.drain()
            answers.append(await client.post("/caption", content=RED, headers=PNG | origin | key))
            assert [one.status_code for one in answers] == [200, 422, 413, 401, 404, 405, 405, 200, 400, 503]
            for answer in answers:
                assert answer.headers["access-control-allow-origin"] == PAGE
                assert answer.headers["access-control-expose-headers"] == EXPOSED
                assert answer.headers["vary"] == "Origin"
                assert "access-control-allow-credentials" not in answer.headers

    run(test)


def test_a_star_is_every_origin() -> None:
    async def test() -> None:
        async with lab(cors_origins="*") as there:
            for origin in (PAGE, "null"):
                preflight = await there.client.options("/caption", headers={"Origin": origin} | ASKING)
                answer = await there.client.get("/models", headers={"Origin": origin})
                for response in (preflight, answer):
                    assert response.status_code == 200
                    assert response.headers["access-control-allow-origin"] == "*"
                    assert "access-control-allow-credentials" not in response.headers

    run(test)


def test_without_the_setting_nothing_is_allowed() -> None:
    async def test() -> None:
        async with lab() as there:
            preflight = await there.client.options("/caption", headers={"Origin": PAGE} | ASKING)
            assert kind(preflight) == (405, "method-not-allowed")
            answer = await there.client.get("/models", headers={"Origin": PAGE})
            for response in (preflight, answer):
                assert not cors(response)
                assert "vary" not in response.headers

    run(test)


@pytest.mark.parametrize("given", ["https://page.example/", "page.example", "https://*.example", "https://a.b/c", "**"])
def test_what_is_no_origin(given: str) -> None:
    with pytest.raises(ValidationError, match="scheme://host"):
        Settings(cors_origins=given)


def test_origins_of_other_kinds() -> None:
    given = "https://a.example:8443, http://[::1]:8000, chrome-extension://abcdef, capacitor://localhost, null, *"
    assert len(Settings(cors_origins=given).cors_origins) == 6
    assert Settings(cors_origins="").cors_origins == ()
