"""POST /rerank and /v1/rerank: the same, but for the shape of errors."""

from __future__ import annotations

from app import retrieval
from app.http.endpoints import Endpoint
from app.wire.openai.documentation import OPENAI_PROBLEMS, PLAIN_PROBLEMS, document_json
from app.wire.openai.errors import openai_response
from app.wire.openai.examples import RERANK
from app.wire.retrieval import RerankAnswer, RerankFields
from models.base import Task

SUMMARY = "Sort texts by how well they fit an image, or images by how well they fit a text"
ENDPOINTS = (
    Endpoint(
        path="/rerank",
        task=Task.MATCH,
        label="rerank",
        function=retrieval.rerank,
        documentation=document_json(SUMMARY, RerankFields, RerankAnswer, RERANK, PLAIN_PROBLEMS),
    ),
    Endpoint(
        path="/v1/rerank",
        task=Task.MATCH,
        label="rerank",
        function=retrieval.rerank,
        documentation=document_json(SUMMARY, RerankFields, RerankAnswer, RERANK, OPENAI_PROBLEMS),
        tell=openai_response,
    ),
)
