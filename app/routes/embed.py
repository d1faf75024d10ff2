"""POST /embed"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app import tasks
from app.routes.common import answer, open_form
from app.wire.answers import EmbedAnswer
from app.wire.documentation import document
from app.wire.schemas import EmbedFields
from models.base import Task

router = APIRouter()


@router.post("/embed", **document(Task.EMBED, EmbedFields, EmbedAnswer))
async def embed(request: Request) -> Response:
    work, form = await open_form(request, EmbedFields)
    return answer(await tasks.embed(work, form))
