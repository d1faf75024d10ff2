"""POST /caption"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app import tasks
from app.routes.common import answer, open_form
from app.wire.answers import CaptionAnswer
from app.wire.documentation import document
from app.wire.schemas import CaptionFields
from models.base import Task

router = APIRouter()


@router.post("/caption", **document(Task.CAPTION, CaptionFields, CaptionAnswer))
async def caption(request: Request) -> Response:
    work, form = await open_form(request, CaptionFields)
    return answer(await tasks.caption(work, form))
