"""POST /match"""

from __future__ import annotations

from app import tasks
from app.http.endpoints import Endpoint
from app.wire.answers import MatchAnswer
from app.wire.documentation import document
from app.wire.schemas import MatchFields
from models.base import Task

ENDPOINT = Endpoint(
    path="/match",
    task=Task.MATCH,
    function=tasks.answering(MatchFields, tasks.match),
    documentation=document(Task.MATCH, MatchFields, MatchAnswer),
)
