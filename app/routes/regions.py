"""POST /segment and /detect"""

from __future__ import annotations

from app import regions, tasks
from app.http.endpoints import Endpoint
from app.wire.documentation import document
from app.wire.regions import DetectAnswer, DetectFields, SegmentAnswer, SegmentFields
from models.base import Task

ENDPOINTS = (
    Endpoint(
        path="/segment",
        task=Task.SEGMENT,
        function=tasks.answering(SegmentFields, regions.segment),
        documentation=document(
            Task.SEGMENT,
            SegmentFields,
            SegmentAnswer,
            picture="for `Accept: image/png`: the image at its own size with a colour over each text's part, and a "
            "legend below",
        ),
    ),
    Endpoint(
        path="/detect",
        task=Task.DETECT,
        function=tasks.answering(DetectFields, regions.detect),
        documentation=document(
            Task.DETECT,
            DetectFields,
            DetectAnswer,
            picture="for `Accept: image/png`: the image at its own size with the boxes",
        ),
    ),
)
