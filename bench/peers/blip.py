"""What both peers are built around: the three BLIP models of transformers in one process, lists in, lists out."""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn import functional as F
from transformers import (
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    BlipProcessor,
)

from app.settings import default_threads
from models.device import DTYPES

MAX_TEXT_TOKENS = 35


def arguments() -> argparse.Namespace:
    """A peer's command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True, help="with the checkpoints caption, vqa and match")
    parser.add_argument("--dtype", choices=DTYPES, required=True)
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--port", type=int, required=True)
    return parser.parse_args()


def open_image(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


class Blip:
    """Used as its documentation shows, with lists as batches."""

    def __init__(self, folder: Path, dtype: str, device: str = "cpu") -> None:
        torch.set_num_threads(default_threads())  # as many as ours has
        self.dtype, self.device = DTYPES[dtype], device
        self.processor = BlipProcessor.from_pretrained(folder / "caption")
        self.captioner: Any = self._load(BlipForConditionalGeneration, folder / "caption")
        self.answerer: Any = self._load(BlipForQuestionAnswering, folder / "vqa")
        self.matcher: Any = self._load(BlipForImageTextRetrieval, folder / "match")

    def _load(self, model_class: Any, folder: Path) -> Any:
        return model_class.from_pretrained(folder, dtype=self.dtype).to(self.device).eval()

    def _inputs(
        self, images: Sequence[Image.Image] | None = None, texts: Sequence[str] | None = None
    ) -> dict[str, Any]:
        inputs: dict[str, Any] = {}
        if images:
            pixels = self.processor.image_processor(list(images), return_tensors="pt")["pixel_values"]
            inputs["pixel_values"] = pixels.to(self.device, self.dtype)
        if texts:
            encoded = self.processor.tokenizer(
                list(texts), padding=True, truncation=True, max_length=MAX_TEXT_TOKENS, return_tensors="pt"
            )
            inputs |= {name: encoded[name].to(self.device) for name in ("input_ids", "attention_mask")}
        return inputs

    def _generate(self, model: Any, inputs: dict[str, Any], num_beams: int, num_tokens: int) -> list[str]:
        tokens = model.generate(
            **inputs, num_beams=num_beams, min_new_tokens=num_tokens, max_new_tokens=num_tokens, do_sample=False
        )
        return self.processor.batch_decode(tokens, skip_special_tokens=True)

    @torch.inference_mode()
    def caption(self, images: Sequence[Image.Image], num_beams: int, num_tokens: int) -> list[str]:
        return self._generate(self.captioner, self._inputs(images), num_beams, num_tokens)

    @torch.inference_mode()
    def answer(
        self, images: Sequence[Image.Image], questions: Sequence[str], num_beams: int, num_tokens: int
    ) -> list[str]:
        return self._generate(self.answerer, self._inputs(images, questions), num_beams, num_tokens)

    @torch.inference_mode()
    def match(self, images: Sequence[Image.Image], texts: Sequence[str]) -> list[float]:
        """Pair by pair: the probability of a match."""
        logits = self.matcher(**self._inputs(images, texts)).itm_score
        return logits.float().softmax(dim=-1)[:, 1].tolist()

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Image.Image]) -> list[list[float]]:
        hidden = self.matcher.vision_model(**self._inputs(images)).last_hidden_state
        return F.normalize(self.matcher.vision_proj(hidden[:, 0]), dim=-1).float().tolist()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> list[list[float]]:
        hidden = self.matcher.text_encoder(**self._inputs(texts=texts)).last_hidden_state
        return F.normalize(self.matcher.text_proj(hidden[:, 0]), dim=-1).float().tolist()
