"""What the original authors' code computes, and how to ask our models for the same."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

BLIP = Path(__file__).parent / "blip"
CATALOG = BLIP / "catalog.toml"  # its profile: golden
BLIP2 = Path(__file__).parent / "blip2"
BLIP2_CATALOG = BLIP2 / "catalog.toml"  # its profile: golden2

DEVICE_VARIABLE = "GOLDEN_DEVICE"  # names another device than the CPU to compute the cases on

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
    return BLIP / files[name] if name in files else BLIP2 / blip2()["images"][name]["file"]


@cache
def image(name: str) -> Image.Image:
    with Image.open(image_file(name)) as opened:
        return opened.convert("RGB")


def new_tokens(case: dict[str, Any]) -> dict[str, Any]:
    """The originals' lengths count the prompt, ours do not."""
    prompt = len(case["decoder_input_ids"])
    return {"max_new_tokens": case["max_length"] - prompt, "min_new_tokens": max(case["min_length"] - prompt, 0)}


@cache
def blip2() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BLIP2 / "cases_shared.json").read_text())
    return found


def blip2_settings(kind: str, case: dict[str, Any]) -> dict[str, Any]:
    """How a case of `opt` or `t5` generates. LAVIS' lengths count a start token, but for T5's longest."""
    asked = {"num_sequences": "num_captions", "num_beams": "num_beams"}
    asked |= {name: name for name in ("length_penalty", "repetition_penalty")}
    settings = {ours: case["kwargs"][theirs] for ours, theirs in asked.items() if theirs in case["kwargs"]}
    if case["api"] == "generate":
        settings["max_new_tokens"] = case["kwargs"].get("max_length", 30) - (kind == "opt")
        settings["min_new_tokens"] = max(case["kwargs"].get("min_length", 1) - 1, 0)
    return settings


def blip2_catalog(folder: Path) -> Path:
    """BLIP-2's catalog and checkpoints, copied into `folder`, and `t5-old` beside them: T5 without an image token, with
    the same weights."""
    shutil.copytree(BLIP2 / "checkpoints", folder / "checkpoints")
    old = folder / "checkpoints" / "t5_noimgtok"
    shutil.copytree(folder / "checkpoints" / "t5", old)
    config = json.loads((old / "config.json").read_text())
    del config["image_token_index"]
    (old / "config.json").write_text(json.dumps(config))
    known = BLIP2_CATALOG.read_text().replace('"t5", ', '"t5", "t5-old", ')
    entry = 'caption = { checkpoint = "checkpoints/t5_noimgtok" }\nvqa = { checkpoint = "checkpoints/t5_noimgtok" }\n'
    catalog = folder / "catalog.toml"
    catalog.write_text(f'{known}\n[models.t5-old]\nfamily = "blip2"\n{entry}')
    return catalog
