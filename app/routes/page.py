"""The page at /, for people, and its files under /ui: those of app/page, as they are. They hold no data of the service:
with keys too, anyone may read them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parents[1] / "page"
MEDIA = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for again each time: 304 while it is the same
}
router = APIRouter()


class File(NamedTuple):
    content: bytes
    media_type: str
    etag: str


@cache
def files() -> Mapping[str, File]:
    """By their paths below the folder; read once, when the first is asked for: about 100 kB."""
    return {path.relative_to(FOLDER).as_posix(): _read(path) for path in FOLDER.rglob("*") if path.suffix in MEDIA}


def _read(path: Path) -> File:
    content = path.read_bytes()
    return File(content, MEDIA[path.suffix], f'"{sha256(content).hexdigest()[:32]}"')


@router.get("/ui/examples", include_in_schema=False)
async def examples(request: Request) -> Response:
    """Pictures to begin with, and what to ask of each. Their paths are relative to the page."""
    return answer(request, "examples.json")


@router.get("/ui/{name:path}", include_in_schema=False)
async def file(request: Request, name: str) -> Response:
    return answer(request, name)


def index(request: Request) -> Response:
    """The page. Its links are relative: at the bare prefix of a proxy they would lead beside it, so it goes on to
    the prefix with a slash."""
    asked: bytes = request.scope.get("raw_path") or b"/"
    if not asked.endswith(b"/"):
        last = request.scope["root_path"].rpartition("/")[2]
        return Response(status_code=307, headers={"Location": f"{last}/", "Vary": "Accept"})
    return answer(request, "index.html", {"Vary": "Accept"})


def answer(request: Request, name: str, headers: Mapping[str, str] | None = None) -> Response:
    """The file, or 304 if the browser has it. Raises HTTPException (404)."""
    if (found := files().get(name)) is None:
        raise HTTPException(404)
    told = {**HEADERS, **(headers or {}), "ETag": found.etag}
    known = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    if known & {found.etag, "*"}:
        return Response(status_code=304, headers=told)
    return Response(found.content, headers=told, media_type=found.media_type)
