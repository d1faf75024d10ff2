"""POST /classify"""

from __future__ import annotations

from app import retrieval
from app.http.endpoints import Endpoint
from app.wire.documentation import document
from app.wire.retrieval import ClassifyAnswer, ClassifyFields, PlainLabel, ZeroShotBody
from models.base import Task

ENDPOINT = Endpoint(
    path="/classify",
    task=Task.MATCH,
    label="classify",
    function=retrieval.classify,
    documentation=document("classify", ClassifyFields, ClassifyAnswer | list[PlainLabel], also=ZeroShotBody),
)
