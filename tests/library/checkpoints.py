"""Tiny checkpoints with seeded random weights, in the files that the hub has. Real weights have not run here.

The weights are wide: with the usual deviation of 0.02, what padding or a crop does wrong would vanish in rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

DEVIATION = 0.25
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def widen(model: torch.nn.Module, seed: int = 0) -> None:
    """Matrices get a deviation of 0.25, vectors move by a tenth; scalars stay. By numpy: the same on every machine."""
    rng = np.random.default_rng(seed)
    for parameter in model.parameters():
        noise = torch.from_numpy(rng.standard_normal(tuple(parameter.shape), np.float32))
        if parameter.dim() >= 2:
            parameter.data = DEVIATION * noise
        elif parameter.numel() > 1:
            parameter.data += 0.1 * noise


def write_clip(folder: Path, **text: Any) -> None:
    """As openai/clip-vit-base-patch32. `text`: entries of its text configuration."""
    tokenizer = _clip_tokenizer()
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    stated = {**TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 77, **ids, **text}
    model = CLIPModel(CLIPConfig(vision_config=VISION, text_config=stated, projection_dim=16))
    widen(model)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    model.save_pretrained(folder)


def _clip_tokenizer() -> CLIPTokenizer:
    """Letters, a few words of two, and the two special tokens with the largest ids, as CLIP's has them."""
    signs = list(bytes_to_unicode().values())
    merges = [("r", "e"), ("re", "d</w>"), ("d", "o"), ("do", "g</w>")]
    vocabulary = [*signs, *(f"{one}</w>" for one in signs), *("".join(pair) for pair in merges)]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    ids = {token: number for number, token in enumerate(vocabulary)}
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=77)


@dataclass(frozen=True, slots=True)
class Tiny:
    """A family's checkpoint, and how it is used."""

    write: Callable[[Path], None]
    limit: int  # tokens of a text
    cut: bool = False  # longer ones are, else refused
    sigmoid: bool = False  # of each logit, in place of the softmax
    tokenized: Mapping[str, Any] = field(default_factory=dict)  # how the library's users call its tokenizer


FAMILIES = {"clip": Tiny(write_clip, limit=77)}
