"""The endpoint table: what is in it is bounded, and no route that does work is outside of it."""

from __future__ import annotations

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app import main
from app.http.endpoints import Endpoint
from app.main import create_app
from app.settings import Settings
from models.base import Task
from tests.app.support import PNG, RED, kind, lab, run


def test_every_route_that_takes_a_body_is_in_the_table() -> None:
    app = create_app(Settings(), lambda _: [])
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    assert {route.path for route in routes if (route.methods or set()) - {"GET", "HEAD"}} == main.ENDPOINTS.keys()
    assert len(main.ENDPOINTS) >= len(Task)


def test_a_path_of_the_table_has_limits_lease_and_deadline() -> None:
    """Whatever its path: nothing but the table makes it so."""
    seen: list[tuple[int, bool]] = []

    async def function(request: Request) -> Response:
        exchange = request.scope["blip.exchange"]
        seen.append((exchange.lease.held, exchange.deadline is not None))
        return JSONResponse({"size": len(exchange.body)})

    def tell(_: Exception, request_id: str) -> Response:
        return JSONResponse({"oops": request_id}, 413)

    extra = Endpoint("/v9/anything", Task.CAPTION, function, {}, tell)
    main.ENDPOINTS[extra.path] = extra
    try:

        async def test() -> None:
            async with lab(max_body_bytes=1000) as there:
                answer = await there.client.post(extra.path, content=RED, headers=PNG)
                assert answer.json() == {"size": len(RED)}
                assert seen == [(len(RED), True)]
                too_large = await there.client.post(extra.path, content=bytes(1001), headers={"x-request-id": "mine"})
                assert (too_large.status_code, too_large.json()) == (413, {"oops": "mine"})
                assert kind(await there.client.get(extra.path)) == (405, "method-not-allowed")
                assert there.count("requests_total", task="caption", model="fake", code="413") == 1

        run(test)
    finally:
        del main.ENDPOINTS[extra.path]
