"""The likelihood of a given caption under the decoder that writes captions, teacher-forced.

Source: the loss of BLIP_Decoder.forward in salesforce/BLIP models/blip.py, of LAVIS' blip2_opt.py and blip2_t5.py: its
tokens after the prompt, stop token included; here without label smoothing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.base import InputError, Item, Op
from models.generation.loop import GeneratingRunner
from models.generation.ranking import RANK_TOKENS
from models.outputs import Scores
from models.runners.text import pad

KEY = "likelihood"


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """The payload of an item: the decoder's ids, from its first token to the stop token."""

    ids: list[int]
    num_known: int  # of them that are not the caption's: the first token and the prompt


class LikelihoodRunner(GeneratingRunner):
    """A runner that also says how likely a given caption is."""

    def _given(self, ids: list[int], num_known: int) -> Item:
        """Raises InputError if the caption has nothing but a stop token."""
        if len(ids) <= num_known + 1:
            raise InputError("text: has no character that the model reads")
        return Item(Op.SCORE, KEY, Given(ids, num_known))

    @abstractmethod
    def _next_logits(self, batch: Sequence[Item], ids: Tensor, mask: Tensor) -> Tensor:
        """Logits of the token after each, `(rows, tokens, vocabulary)`. `ids`: `(rows, tokens)`, padded on the right.
        `mask`: false at padding."""

    def _likelihoods_of(self, batch: Sequence[Item]) -> list[Scores]:
        """As many captions at a time as have RANK_TOKENS once padded, one at least."""
        longest = max(len(item.payload.ids) for item in batch)
        at_once = max(1, RANK_TOKENS // longest)
        parts = [batch[start : start + at_once] for start in range(0, len(batch), at_once)]
        return [scores for part in parts for scores in self._mean_log_probabilities(part).cpu().numpy()]

    def _mean_log_probabilities(self, batch: Sequence[Item]) -> Tensor:
        """`(rows, 1)`, float32."""
        ids, mask = pad([item.payload.ids for item in batch], self._device)
        known = torch.tensor([[item.payload.num_known] for item in batch], device=self._device)
        counted = mask & (torch.arange(ids.shape[1], device=self._device) >= known)
        log_probabilities = self._next_logits(batch, ids[:, :-1], mask[:, :-1]).log_softmax(-1)
        chosen = log_probabilities.gather(-1, ids[:, 1:, None])[..., 0]
        return (chosen * counted[:, 1:]).sum(1, keepdim=True) / counted.sum(1, keepdim=True)
