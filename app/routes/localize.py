"""POST /localize"""

from __future__ import annotations

from app import tasks
from app.http.endpoints import Endpoint
from app.wire.answers import ITM_HEADER, LocalizeAnswer
from app.wire.documentation import document
from app.wire.schemas import LocalizeFields
from models.base import Task

ENDPOINT = Endpoint(
    path="/localize",
    task=Task.LOCALIZE,
    function=tasks.answering(LocalizeFields, tasks.localize),
    documentation=document(
        Task.LOCALIZE,
        LocalizeFields,
        LocalizeAnswer,
        picture="for `Accept: image/png`: the image at its own size with the heat over it",
        headers={ITM_HEADER: "of the picture: probability of a match"},
    ),
)
