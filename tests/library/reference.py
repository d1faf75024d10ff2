"""What the library itself computes: its model in float32, its processors, one picture and one text at a time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

Numbers = NDArray[np.float64]


class Answers(NamedTuple):
    images: Numbers  # unit vectors, `(images, dimensions)`
    texts: Numbers
    logits: Numbers  # `(images, texts)`


class Reference:
    def __init__(self, folder: Path, **text: Any) -> None:
        """`text`: how the library's users call its tokenizer for this family."""
        self._model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
        self._text = text

    def answers(self, pictures: Sequence[bytes], texts: Sequence[str]) -> Answers:
        pairs = [[self._pair(picture, text) for text in texts] for picture in pictures]
        images = np.stack([row[0].image_embeds[0].numpy() for row in pairs])
        of_texts = np.stack([pair.text_embeds[0].numpy() for pair in pairs[0]])
        logits = np.array([[float(pair.logits_per_image) for pair in row] for row in pairs])
        return Answers(_unit(images), _unit(of_texts), logits)

    @torch.inference_mode()
    def _pair(self, picture: bytes, text: str) -> Any:
        with Image.open(io.BytesIO(picture)) as image:
            pixels = self._processor(image.convert("RGB"), return_tensors="pt")["pixel_values"]
        return self._model(pixel_values=pixels, **self._tokenizer([text], return_tensors="pt", **self._text))

    def num_tokens(self, text: str) -> int:
        return len(self._tokenizer(text)["input_ids"])


def _unit(vectors: NDArray[np.float32]) -> Numbers:
    wide = vectors.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))
