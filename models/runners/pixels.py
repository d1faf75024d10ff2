"""Pictures to pixels: what a checkpoint's preprocessor file asks for, and the preprocessing itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.base import Preprocessing
from models.weights import CheckpointError

# Fallback without a preprocessor file: CLIP's mean and std.
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


def square_resize(processor: Mapping[str, Any], image_size: int) -> Preprocessing:
    """For a tower that takes squares of `image_size` pixels. `processor`: the content of preprocessor_config.json.

    Raises CheckpointError if the preprocessor makes another size: in transformers the position embeddings of a smaller
    picture would silently be wrong."""
    made = processor.get("size", image_size)
    if made not in (image_size, {"height": image_size, "width": image_size}):
        raise CheckpointError(f"the preprocessor makes {made}, the tower takes {image_size} pixels")
    mean, std = processor.get("image_mean", IMAGE_MEAN), processor.get("image_std", IMAGE_STD)
    return Preprocessing(image_size, tuple(mean), tuple(std))


def preprocess(image: Image.Image, how: Preprocessing) -> Tensor:
    """An RGB picture -> normalised pixels `(3, size, size)`, resized as torchvision's Resize does a PIL picture."""
    resized = image.resize((how.image_size, how.image_size), Image.Resampling.BICUBIC)
    # In numpy: torch would start a team of threads for each CPU thread that preprocesses.
    values = np.array(resized, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
    mean, std = (np.array(numbers, dtype=np.float32)[:, None, None] for numbers in (how.mean, how.std))
    return torch.from_numpy(np.ascontiguousarray((values - mean) / std))
