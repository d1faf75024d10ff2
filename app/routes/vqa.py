"""POST /vqa"""

from __future__ import annotations

from app import tasks
from app.http.endpoints import Endpoint
from app.wire.answers import VqaAnswer
from app.wire.documentation import document
from app.wire.schemas import VqaFields
from models.base import Task

ENDPOINT = Endpoint(
    path="/vqa",
    task=Task.VQA,
    function=tasks.answering(VqaFields, tasks.vqa),
    documentation=document(Task.VQA, VqaFields, VqaAnswer),
)
