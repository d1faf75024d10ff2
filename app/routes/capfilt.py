"""POST /capfilt"""

from __future__ import annotations

from app import capfilt, tasks
from app.http.endpoints import Endpoint
from app.wire.capfilt import CapfiltAnswer, CapfiltFields
from app.wire.documentation import document
from models.base import Task

ENDPOINT = Endpoint(
    path="/capfilt",
    task=Task.CAPFILT,
    function=tasks.answering(CapfiltFields, capfilt.capfilt),
    documentation=document(Task.CAPFILT, CapfiltFields, CapfiltAnswer),
)
