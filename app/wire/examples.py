"""The examples of /openapi.json: a request and an answer for each task."""

from __future__ import annotations

from typing import Any

from models.base import Task

# 32 x 32, PNG
RED_SQUARE = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAKElEQVR42u3NQQ0AAAgEoNP+nTWFDzcoQE1udQQCgUAgEAgEAsGTYAGj"
    "xAE/G/Q2tQAAAABJRU5ErkJggg=="
)
# The same size, gray
WHITE_SQUARE = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAGUlEQVR4nGP8z4AfMBGQH1UwqmBUwbBVAACjPQE/b0XQuQAAAABJRU5ErkJggg=="
)
BLACK_SQUARE = "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAEklEQVR4nGNgGAWjYBSMAuwAAAQgAAGGsz1EAAAAAElFTkSuQmCC"
MODEL = "a-model"  # in examples, where no served one is named
EXAMPLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    Task.CAPTION: (
        {"image": RED_SQUARE, "num_captions": 2},
        {
            "model": MODEL,
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
            "model": MODEL,
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
            "model": MODEL,
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
            "model": MODEL,
            "dimensions": 2,
            "images": [{"embedding": "mpkZP83MTD8="}],
            "texts": [{"embedding": "zcxMP5qZGT8="}],
        },
    ),
    "classify": (
        {"image": RED_SQUARE, "label": ["red square", "blue circle"], "template": "a {}"},
        {
            "model": MODEL,
            "classes": [
                [
                    {"label": "red square", "score": 0.99, "itc": 0.41},
                    {"label": "blue circle", "score": 0.01, "itc": 0.11},
                ]
            ],
        },
    ),
    Task.CAPFILT: (
        {"image": RED_SQUARE, "text": ["a red square", "buy one, get one free"], "seed": 1},
        {
            "model": MODEL,
            "images": [
                {
                    "texts": [
                        {"text": "a red square", "source": "web", "itm": 0.98, "kept": True},
                        {"text": "buy one, get one free", "source": "web", "itm": 0.02, "kept": False},
                        {"text": "a small red square", "source": "synthetic", "itm": 0.97, "kept": True},
                    ]
                }
            ],
        },
    ),
    Task.LOCALIZE: (
        {"image": RED_SQUARE, "text": "a red square", "tokens": True},
        {
            "model": MODEL,
            "text": "a red square",
            "itm": 0.98,
            "grid": [2, 2],
            "map": [[0.31, 0.02], [0.01, 0.0]],
            "tokens": [
                {"token": "a", "map": [[0.0, 0.03], [0.0, 0.0]]},
                {"token": "red", "map": [[0.62, 0.03], [0.03, 0.0]]},
                {"token": "square", "map": [[0.31, 0.0], [0.0, 0.0]]},
            ],
        },
    ),
    Task.SEGMENT: (
        {"image": RED_SQUARE, "text": ["a red square", "a blue circle"]},
        {
            "model": MODEL,
            "segments": [
                {"text": "a red square", "score": 0.97, "mask": WHITE_SQUARE},
                {"text": "a blue circle", "score": 0.02, "mask": BLACK_SQUARE},
            ],
        },
    ),
    Task.DETECT: (
        {"image": RED_SQUARE, "text": ["a red square", "a blue circle"], "threshold": 0.2},
        {"model": MODEL, "detections": [{"text": "a red square", "score": 0.91, "box": [7.8, 8.1, 24.2, 24.0]}]},
    ),
}
SUMMARIES: dict[str, str] = {
    Task.CAPTION: "Describe images",
    Task.VQA: "Answer questions about an image",
    Task.MATCH: "Score images against texts",
    Task.EMBED: "Embed images and texts",
    "classify": "Say which labels fit images best",
    Task.CAPFILT: "Caption images, and keep the captions and web texts that match",
    Task.LOCALIZE: "Show where in an image a text is",
    Task.SEGMENT: "Cut out of an image what texts name",
    Task.DETECT: "Find what texts or an example name in an image",
}
MODELS_EXAMPLE = {
    "models": [
        {
            "name": MODEL,
            "family": "a-family",
            "note": "what the operator says of it",
            "template": "Question: {} Short answer:",
            "tasks": {
                "vqa": {
                    "checkpoint": "someone/a-checkpoint",
                    "revision": "0123456789abcdef0123456789abcdef01234567",
                    "device": "cpu",
                    "dtype": "bf16",
                    "kernels": {"tower": "onednn", "text": "onednn", "head": "torch"},
                    "image_size": 224,
                    "history": True,
                    "template": True,
                    "images": 1,
                    "answers": 0,
                },
                "match": {
                    "checkpoint": "someone/another-checkpoint",
                    "revision": None,
                    "device": "cpu",
                    "dtype": "bf16",
                    "kernels": {"tower": "onednn", "text": "onednn", "head": "torch"},
                    "image_size": 224,
                    "heads": ["itm", "itc"],
                    "temperature": 14.3,
                    "logit_bias": None,
                },
            },
        }
    ],
    "limits": {"max_items": 64},
}
METRICS_EXAMPLE = f"""\
# HELP blip_requests_total Answered requests
# TYPE blip_requests_total counter
blip_requests_total{{code="200",model="{MODEL}",task="caption"}} 12.0
"""
