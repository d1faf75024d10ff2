"""Families that find what a text or an example names: each patch of a picture has a box, and an embedding that is
compared with that of the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from models.base import Capabilities, Item, ModelRunner, Op, Task
from models.device import on_device, to_device
from models.families.family import Family, RunnerParts
from models.families.library import parts
from models.families.library.networks import LibraryNetworks
from models.families.library.texts import TextReader, Texts, text_reader
from models.framing import Fit
from models.inputs import DetectInput, ExampleInput, Input
from models.layers.tower import Tower
from models.outputs import Scores
from models.runners.text import ImageGroups
from models.runners.unit import HeadsRunner


@dataclass(frozen=True, slots=True)
class Detecting:
    """What a family states. Classes and parts go by their names in transformers."""

    config: str
    architecture: str  # in config.json
    image_processor: str  # where preprocessor_config.json names none
    encoders: str  # the two, of which that of pictures is the tower
    texts: Texts


class PatchesTower(Tower):
    """All tokens after the last norm, which is the encoder's own."""

    def __init__(self, part: Any) -> None:
        super().__init__()
        self.config = part.config
        self.part = part

    def forward(self, pixels: Tensor) -> Tensor:
        """-> `(images, 1 + patches, width)`"""
        states = self.part(pixel_values=pixels.to(self.part.dtype)).last_hidden_state
        return self.part.post_layernorm(states)


class _Networks(LibraryNetworks):
    fits = frozenset({Fit.SQUEEZE, Fit.PAD})

    def __init__(self, stated: Detecting) -> None:
        super().__init__(stated.config, {Task.DETECT: stated.architecture}, stated.image_processor)
        self._stated = stated
        self.refilled = {"box_bias": self._box_bias}

    def build_tower(self, config: Any, /) -> Tower:
        return PatchesTower(parts.taken_out(self.whole(config), self._path))

    def build(self, _: Task, config: Any, /) -> nn.Module:
        network: nn.Module = self.whole(config)
        parts.taken_out(network, self._path)
        return network

    def tower_names(self) -> dict[str, str]:
        return {"part": self._path}

    @property
    def _path(self) -> str:
        return f"{self._stated.encoders}.vision_model"

    def _box_bias(self, shape: torch.Size) -> Tensor:
        """Where each patch's box is to begin with: a buffer that no file has."""
        model, side = getattr(transformers, self._stated.architecture), isqrt(shape[0])
        return model.compute_box_bias(model, side, side)


class DetectionRunner(HeadsRunner):
    """Boxes and how well they fit a query. The payload of a text is its ids; of another query, its embedding."""

    def __init__(self, parts: RunnerParts, stated: Detecting) -> None:
        """Raises CheckpointError if the tokenizer belongs to another checkpoint."""
        super().__init__(parts.unit, parts.network, parts.device, Capabilities(heads=()))
        self._texts: TextReader = text_reader(parts, stated.texts)
        self._encoders = parts.network.get_submodule(stated.encoders)

    def prepare(self, request: Input) -> Item:
        match request:
            case DetectInput(str(text)):
                ids = self._texts.ids(text)
                return Item(Op.SCORE, "text", ids, num_prompt_tokens=len(ids))
            case DetectInput(query):
                return Item(Op.SCORE, "query", query)
            case ExampleInput():
                return Item(Op.SCORE, "example", None)
            case _:
                raise self._unsupported(request)

    @on_device
    def score(self, batch: Sequence[Item]) -> list[Scores]:
        groups = ImageGroups(batch)
        patches = self._patches(groups.images)
        if batch[0].key == "example":
            vectors, *_ = self.network.embed_image_query(patches, patches)
            return list(vectors[groups.numbers, 0].cpu().numpy())
        queries = self._of_texts(batch) if batch[0].key == "text" else self._given(batch)
        # Every query for every image, and the ones that were asked for: (images, patches, queries) -> (items, patches)
        logits, _ = self.network.class_predictor(patches, queries.expand(len(patches), *queries.shape))
        own = logits[groups.numbers, :, torch.arange(len(batch))]
        boxes = transformers.image_transforms.center_to_corners_format(self.network.box_predictor(patches, patches))
        found = torch.cat([own.sigmoid()[..., None], boxes[groups.numbers]], dim=-1)  # (items, patches, 5)
        return list(found.cpu().numpy())

    def _patches(self, images: Tensor) -> Tensor:
        """`(images, 1 + patches, width)` -> `(images, patches, width)`: each with the whole, as in `image_embedder`."""
        states = images.float()
        return self.network.layer_norm(states[:, 1:] * states[:, :1])

    def _of_texts(self, batch: Sequence[Item]) -> Tensor:
        texts = self._texts.batch([item.payload for item in batch], self._device)
        return self._encoders.get_text_features(**texts).pooler_output

    def _given(self, batch: Sequence[Item]) -> Tensor:
        return to_device(torch.stack([torch.from_numpy(item.payload) for item in batch]), self._device)


def detecting(stated: Detecting) -> Family:
    networks = _Networks(stated)

    def make_runner(parts: RunnerParts, /) -> ModelRunner:
        return DetectionRunner(parts, stated)

    return Family(networks, make_runner, takes_template=False, canonical=networks.canonical)
