"""POST /match"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app import tasks
from app.routes.common import answer, open_form
from app.wire.answers import MatchAnswer
from app.wire.documentation import document
from app.wire.schemas import MatchFields
from models.base import Task

router = APIRouter()


@router.post("/match", **document(Task.MATCH, MatchFields, MatchAnswer))
async def match(request: Request) -> Response:
    work, form = await open_form(request, MatchFields)
    return answer(await tasks.match(work, form))
