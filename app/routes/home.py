"""GET /: where everything is, for programs; people are led to /docs."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from app import __version__

LINKS = {
    "docs": "/docs",
    "openapi": "/openapi.json",
    "models": "/models",
    "ready": "/health/ready",
    "metrics": "/metrics",
}
VARY = {"Vary": "Accept"}
router = APIRouter()


@router.get("/", include_in_schema=False)
async def home(request: Request) -> Response:
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("docs", 307, VARY)  # relative: right behind any prefix
    prefix = request.scope.get("root_path", "")
    tasks = [path for path, methods in request.app.openapi()["paths"].items() if "post" in methods]
    links = {name: prefix + path for name, path in LINKS.items()}
    return JSONResponse(
        {"service": "blip-serve", "version": __version__, **links, "tasks": [prefix + path for path in tasks]},
        headers=VARY,
    )
