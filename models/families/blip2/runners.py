"""BLIP-2's runner for image-text matching, and the choice of a checkpoint's runner.

Source: LAVIS models/blip2_models/blip2_image_text_matching.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models.base import SPACES, Capabilities, Item, ModelRunner, Task
from models.families.blip2.language import LanguageRunner, OPTRunner, T5Runner
from models.families.blip2.qformer import beside_queries
from models.families.family import RunnerParts
from models.layers.attention import Source, padding_mask
from models.runners.matching import MatchingRunner
from models.runners.text import ImageGroups, Tokenizer, WordPiece, pad
from models.weights import CheckpointError

END = "</s>"  # begins OPT's prompts, ends T5's


class RetrievalRunner(MatchingRunner):
    """The heads of an image-text matching checkpoint. An image has one vector per query."""

    text_tokens = 32  # LAVIS' max_txt_len

    def __init__(self, unit: str, network: Any, tokenizer: WordPiece, device: torch.device) -> None:
        lacks = {Task.LOCALIZE: "BLIP-2's authors give no method for it"}
        capabilities = Capabilities(pooling=("none", "mean"), spaces=SPACES, lacks=lacks)
        super().__init__(unit, network, tokenizer, device, capabilities)

    def _itm(self, batch: Sequence[Item]) -> Tensor:
        """The mean of the queries' logits."""
        states, _ = self._pair_states(batch)
        return self.network.itm(states).mean(1)

    def _pair_states(self, batch: Sequence[Item]) -> tuple[Tensor, None]:
        """Of the queries."""
        groups, num_queries = ImageGroups(batch), self.network.qformer.config.num_queries
        ids, mask = pad(groups.sort([item.payload for item in batch]), self._device)
        source = self._look_at(groups)
        states = self.network.qformer(source, ids, beside_queries(mask, num_queries))
        return groups.unsort(states[:, :num_queries]), None

    def _text_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.network.qformer(None, ids, padding_mask(mask))

    def _image_tokens(self, batch: Sequence[Item]) -> Tensor:
        """Of the queries."""
        groups = ImageGroups(batch)
        return self.network.qformer(replace(self._look_at(groups), lines=None))[groups.numbers]

    _image_states = _image_tokens

    def _look_at(self, groups: ImageGroups) -> Source:
        return self._looked_at(groups, lambda images: self.network.qformer.look_at(self.network.norm(images.float())))


def make_runner(parts: RunnerParts) -> ModelRunner:
    """The runner of a loaded checkpoint. Raises CheckpointError if the tokenizer belongs to another checkpoint."""
    if parts.task is not Task.MATCH:
        return _language_runner(parts)
    tokenizer = WordPiece(parts.folder)
    _check(tokenizer, parts.config.qformer_config.vocab_size, first=tokenizer.first_id, stop=tokenizer.stop_id)
    return RetrievalRunner(parts.unit, parts.network, tokenizer, parts.device)


def _language_runner(parts: RunnerParts) -> LanguageRunner:
    kind: type[LanguageRunner]
    text = parts.config.text_config
    if text.model_type == "opt":
        kind, tokenizer, start_id = OPTRunner, Tokenizer(parts.folder, "vocab.json"), text.bos_token_id
    else:
        kind, tokenizer, start_id = T5Runner, Tokenizer(parts.folder), text.decoder_start_token_id
    _check(tokenizer, text.vocab_size, first=start_id, stop=text.eos_token_id)
    if tokenizer.pieces(END) != [start_id if kind is OPTRunner else text.eos_token_id]:
        raise CheckpointError(f"the tokenizer is not the one of config.json: {END} is {tokenizer.pieces(END)}")
    return kind(
        parts.unit, parts.network, tokenizer, start_id, text.eos_token_id, parts.device, parts.max_prompt_tokens
    )


def _check(tokenizer: Tokenizer, num_embeddings: int, **special: Any) -> None:
    if len(tokenizer) > num_embeddings:
        raise CheckpointError(f"the tokenizer has {len(tokenizer)} entries, the vocabulary {num_embeddings}")
    for role, token in special.items():
        if not isinstance(token, int) or not 0 <= token < len(tokenizer):
            raise CheckpointError(f"the {role} token is {token}, but the tokenizer has {len(tokenizer)} entries")
