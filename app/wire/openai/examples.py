"""The examples of /openapi.json for what OpenAI's and Cohere's clients ask: a request and an answer each."""

from __future__ import annotations

from typing import Any

from app.wire.examples import MODEL, RED_SQUARE

PICTURE = f"data:image/png;base64,{RED_SQUARE}"
ID, CREATED = "3f0c1d9a", 1790000000
EXTRAS = {"task": "vqa", "confidence": 0.93}
CHAT = (
    {
        "model": MODEL,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what color is it?"},
                    {"type": "image_url", "image_url": {"url": PICTURE}},
                ],
            }
        ],
    },
    {
        "id": f"chatcmpl-{ID}",
        "object": "chat.completion",
        "created": CREATED,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "red", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
                "blip": EXTRAS,
            }
        ],
        "usage": {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10},
    },
)
CHUNK: dict[str, Any] = {
    "id": f"chatcmpl-{ID}",
    "object": "chat.completion.chunk",
    "created": CREATED,
    "model": MODEL,
    "choices": [{"index": 0, "delta": {"content": " red"}, "logprobs": None, "finish_reason": None}],
}
EMBEDDINGS = (
    {"model": MODEL, "input": ["a red square"]},
    {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.8, 0.6]}],
        "model": MODEL,
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    },
)
RESPONSES = (
    {
        "model": MODEL,
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "what color is it?"},
                    {"type": "input_image", "image_url": PICTURE},
                ],
            }
        ],
    },
    {
        "id": f"resp_{ID}",
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": MODEL,
        "output": [
            {
                "type": "message",
                "id": f"msg_{ID}",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "red", "annotations": []}],
            }
        ],
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "store": False,
        "temperature": None,
        "tool_choice": "none",
        "tools": [],
        "top_p": None,
        "usage": {
            "input_tokens": 8,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 10,
        },
        "blip": EXTRAS,
    },
)
RERANK = (
    {"model": MODEL, "query": "a red square", "documents": [{"image": PICTURE}], "top_n": 1},
    {
        "id": f"rerank-{ID}",
        "model": MODEL,
        "results": [{"index": 0, "relevance_score": 0.98, "blip": {"itc": 0.41, "itm": 0.98}}],
        "usage": {"prompt_tokens": 10, "total_tokens": 10},
    },
)
ENTRY = {"id": f"{MODEL}:vqa", "object": "model", "created": CREATED, "owned_by": "blip-serve"}
ENTRIES = {"object": "list", "data": [{**ENTRY, "id": MODEL}, {**ENTRY, "id": f"{MODEL}:caption"}, ENTRY]}
