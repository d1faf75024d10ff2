"""What every route does: read the form, tell the answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from app.errors import UnsupportedMediaError
from app.http.exchange import Exchange
from app.inference import Work
from app.service import Service
from app.wire.forms import Form
from app.wire.schemas import Fields

F = TypeVar("F", bound=Fields)


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def open_form(request: Request, fields: type[F]) -> tuple[Work, Form[F]]:
    """Raises what `read_form` does."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaError("A compressed body is not supported.")
    exchange: Exchange = request.scope["blip.exchange"]
    work = Work(service_of(request), exchange)
    content_type, query = request.headers.get("content-type", ""), request.scope["query_string"]
    return work, await work.read(content_type, query, exchange.body, fields)


def answer(body: Mapping[str, Any]) -> Response:
    encoded = json.dumps(body, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(encoded, media_type="application/json")
