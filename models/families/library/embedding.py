"""Families of two encoders, of pictures and of texts, whose embeddings are compared: CLIP and its kin.

Their networks are the library's. What a family states is `TwoEncoders`; nothing else is its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import Capabilities, Item, ModelRunner, Op, Task
from models.device import on_device
from models.families.family import Family, RunnerParts
from models.families.library import parts
from models.families.library.networks import LibraryNetworks
from models.families.library.texts import SENTENCE_PIECES, Texts, text_reader
from models.framing import Fit
from models.inputs import ImageEmbeddingInput, Input, TextInput
from models.layers.tower import Tower
from models.outputs import Scores
from models.runners.unit import HeadsRunner

LACKS = {Task.LOCALIZE: "its two encoders do not look at each other"}


@dataclass(frozen=True, slots=True)
class TwoEncoders:
    """What a family states. Classes and parts go by their names in transformers."""

    config: str
    architecture: str  # in config.json
    image_processor: str  # where preprocessor_config.json names none
    texts: Texts
    tower: str = "vision_model"
    image_projection: str | None = "visual_projection"  # from what the tower pooled; None: that is the embedding
    text_projection: str = "text_projection"  # the part that makes the embedding of a text
    any_size: bool = False  # of pictures: the tower has no position embeddings
    scale: Callable[[Any], float] = lambda network: float(network.logit_scale.exp())  # of cosines, as learned
    bias: Callable[[Any], float] | None = None  # added to scaled cosines, for a sigmoid in place of the softmax


class _Networks(LibraryNetworks):
    """What of a picture is cut off is not missed. Buffers are weights, too, as those of batch normalisation."""

    fits = frozenset(Fit)
    sees_all = False

    def __init__(self, stated: TwoEncoders) -> None:
        super().__init__(stated.config, {Task.MATCH: stated.architecture}, stated.image_processor)
        self._stated = stated

    def image_size(self, config: Any, /) -> int | None:
        return None if self._stated.any_size else super().image_size(config)

    def build_tower(self, config: Any, /) -> Tower:
        part = parts.taken_out(self.whole(config), self._stated.tower)
        return parts.LibraryTower(part, lambda output: output.pooler_output[:, None])

    def build(self, _: Task, config: Any, /) -> nn.Module:
        network: nn.Module = self.whole(config)
        parts.taken_out(network, self._stated.tower)
        return network

    def tower_names(self) -> dict[str, str]:
        return {"part": self._stated.tower}


class EmbeddingRunner(HeadsRunner):
    """ITC embeddings. The payload of a text is its ids."""

    def __init__(self, parts: RunnerParts, stated: TwoEncoders) -> None:
        """Raises CheckpointError if the tokenizer belongs to another checkpoint."""
        network = parts.network
        capabilities = Capabilities(
            heads=("itc",),
            dimensions=network.get_submodule(stated.text_projection).out_features,
            lacks=LACKS,
            logit_scale=stated.scale(network),
            logit_bias=None if stated.bias is None else stated.bias(network),
        )
        super().__init__(parts.unit, network, parts.device, capabilities)
        self._texts = text_reader(parts, stated.texts)
        name = stated.image_projection
        self._image_projection = nn.Identity() if name is None else network.get_submodule(name)

    def prepare(self, request: Input) -> Item:
        match request:
            case TextInput(text):
                ids = self._texts.ids(text)
                return Item(Op.SCORE, "text", ids, num_prompt_tokens=len(ids))
            case ImageEmbeddingInput():
                return Item(Op.SCORE, "image", None)
            case _:
                raise self._unsupported(request)

    @on_device
    def score(self, batch: Sequence[Item]) -> list[Scores]:
        vectors = self._of_texts(batch) if batch[0].key == "text" else self._of_images(batch)
        return list(F.normalize(vectors.float(), dim=-1)[:, None].cpu().numpy())

    def _of_texts(self, batch: Sequence[Item]) -> Tensor:
        arguments = self._texts.batch([item.payload for item in batch], self._device)
        return self.network.get_text_features(**arguments).pooler_output

    def _of_images(self, batch: Sequence[Item]) -> Tensor:
        pooled: list[Any] = [item.features for item in batch]  # each `(1, width)`
        return self._image_projection(torch.cat(pooled).float())


def two_encoders(stated: TwoEncoders) -> Family:
    networks = _Networks(stated)

    def make_runner(parts: RunnerParts, /) -> ModelRunner:
        return EmbeddingRunner(parts, stated)

    return Family(networks, make_runner, takes_template=False, canonical=networks.canonical, files=(SENTENCE_PIECES,))
