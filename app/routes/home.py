"""GET /: the page for people; for programs, where everything is and whether it is ready."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app import __version__
from app.errors import UnknownRouteError
from app.routes import page
from app.routes.ops import service_of

LINKS = {
    "docs": "/docs",
    "openapi": "/openapi.json",
    "models": "/models",
    "ready": "/health/ready",
    "metrics": "/metrics",
}
router = APIRouter()


@router.get("/", include_in_schema=False)
async def home(request: Request) -> Response:
    settings = service_of(request).settings
    if "text/html" in request.headers.get("accept", ""):
        if not settings.ui:
            raise UnknownRouteError("The page is switched off (BLIP_UI); /docs lists what is served")
        return page.index(request)
    prefix = request.scope.get("root_path", "")
    tasks = [path for path, methods in request.app.openapi()["paths"].items() if "post" in methods]
    return JSONResponse(
        {
            "service": "blip-serve",
            "version": __version__,
            "phase": service_of(request).phase,
            "needs_key": bool(settings.api_keys),
            **{name: prefix + path for name, path in LINKS.items()},
            "tasks": [prefix + path for path in tasks],
        },
        headers={"Vary": "Accept", "Cache-Control": "no-store"},
    )
