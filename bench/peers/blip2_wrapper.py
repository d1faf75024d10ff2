"""The same wrapper around BLIP-2: captions alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from transformers import AutoImageProcessor, AutoTokenizer, Blip2ForConditionalGeneration

from app.settings import default_threads
from bench.peers.blip import arguments
from bench.peers.wrapper import captioning, serve
from models.device import DTYPES


class Blip2:
    """Used as its documentation shows."""

    def __init__(self, folder: Path, dtype: str, device: str = "cpu") -> None:
        torch.set_num_threads(default_threads())
        self.dtype, self.device = DTYPES[dtype], device
        self.processor = AutoImageProcessor.from_pretrained(folder / "opt")
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "opt")
        model: Any = Blip2ForConditionalGeneration.from_pretrained(folder / "opt", dtype=self.dtype)
        self.model = model.to(device).eval()

    @torch.inference_mode()
    def caption(self, images: Sequence[Image], num_beams: int, num_tokens: int) -> list[str]:
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        tokens = self.model.generate(
            pixel_values=pixels.to(self.device, self.dtype),
            num_beams=num_beams,
            min_new_tokens=num_tokens,
            max_new_tokens=num_tokens,
            do_sample=False,
        )
        texts: list[str] = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return texts


def main() -> None:
    options = arguments()
    serve(captioning(Blip2(options.folder, options.dtype, options.device)), options.port)


if __name__ == "__main__":
    main()
