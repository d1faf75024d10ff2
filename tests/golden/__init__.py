"""What the original authors' code computes, and how to ask our models for the same."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

BLIP = Path(__file__).parent / "blip"
CATALOG = BLIP / "catalog.toml"

# Which served model of the catalog holds which of the golden checkpoints.
SERVED = {"caption": "blip", "vqa": "blip", "retrieval": "blip", "caption_wide": "wide"}


@cache
def cases(kind: str) -> list[dict[str, Any]]:
    """The cases of a kind that a service can meet: not those at another image size than the checkpoint's."""
    every = json.loads((BLIP / "cases_shared.json").read_text())[kind]
    return [case for case in every if not (case.get("interpolated_pos") or case.get("interpolated"))]


@cache
def one(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BLIP / "cases_shared.json").read_text())[kind]
    return found


@cache
def _arrays() -> dict[str, Tensor]:
    return load_file(BLIP / "arrays_shared.safetensors")


def array(reference: dict[str, Any]) -> Tensor:
    return _arrays()[reference["array"]]


@cache
def image_file(name: str) -> Path:
    files = {image["id"]: image["file"] for image in json.loads((BLIP / "cases_shared.json").read_text())["images"]}
    return BLIP / files[name]


@cache
def image(name: str) -> Image.Image:
    with Image.open(image_file(name)) as opened:
        return opened.convert("RGB")


def new_tokens(case: dict[str, Any]) -> dict[str, Any]:
    """The originals' lengths count the prompt, ours do not."""
    prompt = len(case["decoder_input_ids"])
    return {"max_new_tokens": case["max_length"] - prompt, "min_new_tokens": max(case["min_length"] - prompt, 0)}
