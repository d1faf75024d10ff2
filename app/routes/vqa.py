"""POST /vqa"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app import tasks
from app.routes.common import answer, open_form
from app.wire.answers import VqaAnswer
from app.wire.documentation import document
from app.wire.schemas import VqaFields
from models.base import Task

router = APIRouter()


@router.post("/vqa", **document(Task.VQA, VqaFields, VqaAnswer))
async def vqa(request: Request) -> Response:
    work, form = await open_form(request, VqaFields)
    return answer(await tasks.vqa(work, form))
