"""POST /embed"""

from __future__ import annotations

from app import tasks
from app.http.endpoints import Endpoint
from app.wire.answers import EmbedAnswer
from app.wire.documentation import document
from app.wire.schemas import EmbedFields
from models.base import Task

ENDPOINT = Endpoint(
    path="/embed",
    task=Task.EMBED,
    function=tasks.answering(EmbedFields, tasks.embed),
    documentation=document(Task.EMBED, EmbedFields, EmbedAnswer),
)
