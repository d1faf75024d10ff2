"""The runner of a tower, pictures to features, and how a picture is prepared for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.base import Item, Op
from models.device import give_back_holes, on_device, to_device, torch_vectors
from models.framing import Frame, Framing, framed
from models.inputs import ImageInput, Input, Preprocessing
from models.layers.tower import Tower
from models.outputs import Features
from models.runners.unit import UnitRunner
from models.weights import CheckpointError

# Fallback without a preprocessor file: CLIP's mean and std.
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
PIXELS_AT_ONCE = 2 * 384**2  # of a batch, on CPUs: whose activations their cache holds, and malloc keeps
HOLES_BYTES = 2**25  # of features, after which a look at the heap, of some 20 ms, is worth it
MOST_COMPILED = 200  # batch sizes of all towers together; torch stops at 256 compilations of whatever kind


class TowerRunner(UnitRunner):
    """Encodes pictures; it holds one copy of a tower for all checkpoints that share it."""

    def __init__(self, unit: str, tower: Tower, device: torch.device) -> None:
        super().__init__(unit)
        self.module = tower
        self._tower: Callable[[Tensor], Tensor] = tower
        self._device = device
        self._new_bytes = 0  # of features, since holes were given back
        self._sizes: tuple[int, ...] = ()  # the compiled batch sizes, ascending; empty: not compiled, any size

    @on_device
    def compile(self, max_batch_size: int, image_size: int) -> None:
        """Compile the tower for batches of 1, 2, 4, ... square pictures of `image_size` pixels. All sizes are compiled
        now, so that no request waits for it. Raises whatever the compiler does."""
        self._tower = torch.compile(self._tower, dynamic=False)
        self._sizes = tuple(2**power for power in range(max_batch_size.bit_length()))
        # Past its limit, which all towers share, the compiler would silently run uncompiled. The key of its cache on
        # disk lacks the CPU's instruction set: kernels for another would compute something else, or crash.
        with (
            torch._dynamo.config.patch(recompile_limit=MOST_COMPILED, fail_on_recompile_limit_hit=True),
            torch.compiler.config.patch(cache_key_tag=torch_vectors()),  # type: ignore[attr-defined]
        ):
            for number in self._sizes:
                self._tower(torch.zeros(number, 3, image_size, image_size, device=self._device))

    def prepare(self, request: Input) -> Item:
        assert isinstance(request, ImageInput)
        image, how = request.image, request.preprocessing
        pixels = normalised(image if request.is_framed else framed(image, how.framing), how)
        return Item(Op.ENCODE, tuple(pixels.shape), pixels)

    @on_device
    def encode(self, batch: Sequence[Item]) -> list[Features]:
        pixels = to_device(torch.stack([item.payload for item in batch]), self._device)
        # Copies: a view would keep the whole batch's features in memory for as long as it lives.
        encoded = [features.clone() for part in self._parts(pixels) for features in self._tower(part)]
        self._give_back_holes(sum(features.nbytes for features in encoded))
        return encoded

    def _give_back_holes(self, num_bytes: int) -> None:
        """What is kept of a batch for hours lies on the heap between what the batch took and gave back: with glibc,
        which keeps such holes, up to twice the features' memory would be resident."""
        self._new_bytes += num_bytes
        if self._device.type == "cpu" and self._new_bytes >= HOLES_BYTES:
            self._new_bytes = 0
            give_back_holes()

    def _parts(self, pixels: Tensor) -> Sequence[Tensor]:
        """The batch, split into compiled sizes: 7 pictures are 4 + 2 + 1; or into what a CPU does best at a time."""
        if not self._sizes:
            at_once = max(1, PIXELS_AT_ONCE // pixels[0, 0].numel())
            return torch.split(pixels, at_once) if pixels.is_cpu else [pixels]
        left, numbers = len(pixels), list[int]()
        for size in reversed(self._sizes):
            numbers += [size] * (left // size)
            left %= size
        return torch.split(pixels, numbers)


def square_resize(processor: Mapping[str, Any], image_size: int) -> Preprocessing:
    """For a tower that takes squares of `image_size` pixels. `processor`: the content of preprocessor_config.json.

    Raises CheckpointError if the preprocessor makes another size: in transformers the position embeddings of a smaller
    picture would silently be wrong."""
    made = processor.get("size", image_size)
    if made not in (image_size, {"height": image_size, "width": image_size}):
        raise CheckpointError(f"the preprocessor makes {made}, the tower takes {image_size} pixels")
    mean, std = processor.get("image_mean", IMAGE_MEAN), processor.get("image_std", IMAGE_STD)
    return Preprocessing(Framing(image_size), tuple(mean), tuple(std))


def normalised(image: Frame, how: Preprocessing) -> Tensor:
    """A framed RGB picture -> pixels `(3, height, width)`."""
    # In numpy: torch would start a team of threads for each CPU thread that preprocesses.
    values = np.array(image, dtype=np.float32) / np.float32(255) if isinstance(image, Image.Image) else image
    mean, std = (np.array(numbers, dtype=np.float32)[:, None, None] for numbers in (how.mean, how.std))
    return torch.from_numpy(np.ascontiguousarray((values.transpose(2, 0, 1) - mean) / std))
