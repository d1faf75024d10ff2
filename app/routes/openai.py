"""/v1: what OpenAI's clients ask for."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app import chat
from app.errors import UnknownModelError
from app.http.endpoints import Endpoint
from app.service import Service
from app.wire.documentation import ROUTE_STATUSES, answers
from app.wire.openai import examples
from app.wire.openai.answers import (
    Chunk,
    Completion,
    EmbeddingsAnswer,
    ModelEntry,
    ModelList,
    ResponseAnswer,
)
from app.wire.openai.chat import ChatFields, ResponsesFields
from app.wire.openai.documentation import OPENAI_PROBLEMS, document_json, events, openai_problems
from app.wire.openai.embeddings import EmbeddingsFields
from app.wire.openai.errors import openai_response
from models.base import Task

CHAT = document_json("Talk about an image", ChatFields, Completion, examples.CHAT, OPENAI_PROBLEMS)
CHAT["responses"][200]["content"] |= events(Chunk, examples.CHUNK)
NOT_YET = "chat"  # what is counted until the conversation tells whether it is a caption or an answer

ENDPOINTS = (
    Endpoint(
        path="/v1/chat/completions",
        task=Task.CAPTION,
        or_task=Task.VQA,
        label=NOT_YET,
        function=chat.complete,
        documentation=CHAT,
        tell=openai_response,
    ),
    Endpoint(
        path="/v1/responses",
        task=Task.CAPTION,
        or_task=Task.VQA,
        label=NOT_YET,
        function=chat.respond,
        documentation=document_json(
            "Talk about an image, in the plain form of this API",
            ResponsesFields,
            ResponseAnswer,
            examples.RESPONSES,
            OPENAI_PROBLEMS,
        ),
        tell=openai_response,
    ),
    Endpoint(
        path="/v1/embeddings",
        task=Task.EMBED,
        function=chat.embed,
        documentation=document_json(
            "Embed texts or images", EmbeddingsFields, EmbeddingsAnswer, examples.EMBEDDINGS, OPENAI_PROBLEMS
        ),
        tell=openai_response,
    ),
)
NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}, "description": "an id"}
router = APIRouter(prefix="/v1", tags=["of other services"])


@router.get("/models", responses=answers(ModelList, examples.ENTRIES) | openai_problems(401, *ROUTE_STATUSES))
async def models(request: Request) -> Response:
    """The served models; `:caption` and `:vqa` behind a name fix the task."""
    return JSONResponse({"object": "list", "data": list(_entries(request.app.state.service))})


@router.get(
    "/models/{name:path}",
    responses=answers(ModelEntry, examples.ENTRY) | openai_problems(401, 404, *ROUTE_STATUSES),
    openapi_extra={"parameters": [NAME]},
)
async def model(request: Request) -> Response:
    """One of them."""
    name = request.path_params["name"]
    found = {entry["id"]: entry for entry in _entries(request.app.state.service)}
    if name not in found:
        raise UnknownModelError(f"No such model. Served: {', '.join(found)}.")
    return JSONResponse(found[name])


def _entries(service: Service) -> Iterator[ModelEntry]:
    for served in service.models.values():
        tasks = [task for task in (Task.CAPTION, Task.VQA) if task in served.checkpoints]
        for name in (served.name, *(f"{served.name}:{task}" for task in tasks)):
            yield {"id": name, "object": "model", "created": service.created_at, "owned_by": "blip-serve"}
