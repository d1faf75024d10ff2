"""The examples of /openapi.json: a request and an answer for each task."""

from __future__ import annotations

from typing import Any

from models.base import Task

# 32 x 32, PNG
RED_SQUARE = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAKElEQVR42u3NQQ0AAAgEoNP+nTWFDzcoQE1udQQCgUAgEAgEAsGTYAGj"
    "xAE/G/Q2tQAAAABJRU5ErkJggg=="
)
EXAMPLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    Task.CAPTION: (
        {"image": RED_SQUARE, "num_captions": 2},
        {
            "model": "blip",
            "captions": [
                {
                    "text": "a small red square",
                    "confidence": 0.93,
                    "alternatives": [{"text": "a red square", "confidence": 0.41}],
                }
            ],
        },
    ),
    Task.VQA: (
        {"image": RED_SQUARE, "question": "what color is it?", "candidates": ["red", "blue"]},
        {
            "model": "blip",
            "answers": [
                {
                    "question": "what color is it?",
                    "answer": "red",
                    "confidence": 0.97,
                    "candidates": [{"answer": "red", "probability": 0.97}, {"answer": "blue", "probability": 0.03}],
                }
            ],
        },
    ),
    Task.MATCH: (
        {"images": [RED_SQUARE], "text": ["a red square", "a blue circle"]},
        {
            "model": "blip",
            "scores": [
                [
                    {"itm": 0.98, "itm_logits": [-2.1, 1.8], "itc": 0.41, "sum": 2.21},
                    {"itm": 0.02, "itm_logits": [1.9, -2.0], "itc": 0.11, "sum": -1.89},
                ]
            ],
        },
    ),
    Task.EMBED: (
        {"image": RED_SQUARE, "text": "a red square", "encoding": "base64"},
        {
            "model": "blip",
            "dimensions": 2,
            "images": [{"embedding": "mpkZP83MTD8="}],
            "texts": [{"embedding": "zcxMP5qZGT8="}],
        },
    ),
    "classify": (
        {"image": RED_SQUARE, "label": ["red square", "blue circle"], "template": "a {}"},
        {
            "model": "blip",
            "classes": [
                [
                    {"label": "red square", "score": 0.99, "itc": 0.41},
                    {"label": "blue circle", "score": 0.01, "itc": 0.11},
                ]
            ],
        },
    ),
}
SUMMARIES: dict[str, str] = {
    Task.CAPTION: "Describe images",
    Task.VQA: "Answer questions about an image",
    Task.MATCH: "Score images against texts",
    Task.EMBED: "Embed images and texts",
    "classify": "Say which labels fit images best",
}
MODELS_EXAMPLE = {
    "models": [
        {
            "name": "blip2-opt",
            "family": "blip2",
            "note": "with OPT",
            "template": "Question: {} Short answer:",
            "tasks": {
                "vqa": {
                    "checkpoint": "Salesforce/blip2-opt-2.7b",
                    "revision": "59a1ef6c1e5117b3f65523d1c6066825bcf315e3",
                    "device": "cpu",
                    "dtype": "bf16",
                    "image_size": 224,
                    "history": True,
                    "template": True,
                },
                "match": {
                    "checkpoint": "Salesforce/blip2-itm-vit-g",
                    "revision": "520bf73fd0ef6ccce791cd3f06908040aef2d8cc",
                    "device": "cpu",
                    "dtype": "bf16",
                    "image_size": 224,
                    "temperature": 14.3,
                },
            },
        }
    ],
    "limits": {
        "max_body_bytes": 20971520,
        "max_pixels": 50000000,
        "max_side": 16384,
        "max_items": 64,
        "max_pairs": 1024,
        "max_text_chars": 10000,
        "request_timeout_seconds": 60,
    },
}
METRICS_EXAMPLE = """\
# HELP blip_requests_total Answered requests
# TYPE blip_requests_total counter
blip_requests_total{code="200",model="blip",task="caption"} 12.0
"""
