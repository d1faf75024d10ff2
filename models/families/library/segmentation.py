"""Families that cut out what a text names: a decoder reads some layers of a vision encoder, and an embedding of the
text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.base import Capabilities, Item, ModelRunner, Op, Task
from models.device import on_device
from models.families.family import Family, RunnerParts
from models.families.library import parts
from models.families.library.networks import LibraryNetworks
from models.families.library.texts import TextReader, Texts, text_reader
from models.framing import Fit
from models.inputs import Input, SegmentInput
from models.layers.tower import Tower
from models.outputs import Scores
from models.runners.unit import HeadsRunner


@dataclass(frozen=True, slots=True)
class Segmenting:
    """What a family states. Classes and parts go by their names in transformers."""

    config: str
    architecture: str  # in config.json
    image_processor: str  # where preprocessor_config.json names none
    texts: Texts
    tower: str  # the vision encoder
    encoders: str  # what makes the embedding of a text
    decoder: str


class LayersTower(Tower):
    """The layers that the decoder reads, each as narrow as it reads it: nothing of that depends on the text."""

    def __init__(self, part: Any, reduces: nn.ModuleList, layers: Sequence[int]) -> None:
        """`reduces`: float32, of the last of `layers` first, as the decoder has them."""
        super().__init__()
        self.config = part.config, tuple(layers)
        self.part, self.reduces = part, reduces
        self._layers = layers

    def forward(self, pixels: Tensor) -> Tensor:
        """-> `(images, layers * tokens, width)`, float32"""
        states = self.part(pixel_values=pixels.to(self.part.dtype), output_hidden_states=True).hidden_states
        read = zip(self._layers, reversed(self.reduces), strict=True)
        return torch.cat([reduce(states[layer + 1].float()) for layer, reduce in read], dim=1)


class _Networks(LibraryNetworks):
    fits = frozenset({Fit.SQUEEZE})

    def __init__(self, stated: Segmenting) -> None:
        super().__init__(stated.config, {Task.SEGMENT: stated.architecture}, stated.image_processor)
        self._stated = stated

    def image_size(self, _: Any, /) -> None:
        """Any: position embeddings are interpolated."""

    def build_tower(self, config: Any, /) -> Tower:
        model, layers = self.whole(config), config.extract_layers
        part: Any = parts.taken_out(model, self._stated.tower)
        part.encoder.layers = part.encoder.layers[: max(layers) + 1]  # the rest is not read
        return LayersTower(part, model.get_submodule(self._stated.decoder).reduces, layers)

    def build(self, _: Task, config: Any, /) -> nn.Module:
        network: nn.Module = self.whole(config)
        parts.taken_out(network, self._stated.tower)
        decoder: Any = network.get_submodule(self._stated.decoder)
        decoder.reduces = nn.ModuleList(nn.Identity() for _ in decoder.reduces)  # done by the tower
        return network

    def set_dtypes(self, module: nn.Module, dtype: torch.dtype, /) -> None:
        super().set_dtypes(module, dtype)
        if isinstance(module, LayersTower):
            module.reduces.float()

    def tower_names(self) -> dict[str, str]:
        return {"part": self._stated.tower, "reduces": f"{self._stated.decoder}.reduces"}


class SegmentationRunner(HeadsRunner):
    """Maps of probabilities. The payload of a text is its ids."""

    def __init__(self, parts: RunnerParts, stated: Segmenting) -> None:
        """Raises CheckpointError if the tokenizer belongs to another checkpoint."""
        super().__init__(parts.unit, parts.network, parts.device, Capabilities(heads=()))
        self._texts: TextReader = text_reader(parts, stated.texts)
        self._encoders = parts.network.get_submodule(stated.encoders)
        self._decoder = parts.network.get_submodule(stated.decoder)
        self._num_layers = len(parts.config.extract_layers)

    def prepare(self, request: Input) -> Item:
        match request:
            case SegmentInput(text):
                ids = self._texts.ids(text)
                return Item(Op.SCORE, "segment", ids, num_prompt_tokens=len(ids))
            case _:
                raise self._unsupported(request)

    @on_device
    def score(self, batch: Sequence[Item]) -> list[Scores]:
        texts = self._texts.batch([item.payload for item in batch], self._device)
        features: list[Any] = [item.features for item in batch]
        layers = torch.stack(features).chunk(self._num_layers, dim=1)
        decoded = self._decoder(layers, self._encoders.get_text_features(**texts).pooler_output)
        return list(decoded.logits.sigmoid().cpu().numpy())


def segmenting(stated: Segmenting) -> Family:
    networks = _Networks(stated)

    def make_runner(parts: RunnerParts, /) -> ModelRunner:
        return SegmentationRunner(parts, stated)

    return Family(networks, make_runner, takes_template=False, canonical=networks.canonical)
