"""POST /caption"""

from __future__ import annotations

from app import tasks
from app.http.endpoints import Endpoint
from app.wire.answers import CaptionAnswer
from app.wire.documentation import document
from app.wire.schemas import CaptionFields
from models.base import Task

ENDPOINT = Endpoint(
    path="/caption",
    task=Task.CAPTION,
    function=tasks.answering(CaptionFields, tasks.caption),
    documentation=document(Task.CAPTION, CaptionFields, CaptionAnswer),
)
