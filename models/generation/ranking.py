"""Rank mode: candidate answers by their likelihood under the decoder.

Source: `rank_answer` of salesforce/BLIP models/blip_vqa.py."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from threading import Lock

import torch
from torch import Tensor

from models.base import Item, Op
from models.device import on_device
from models.generation.kv_cache import Cache, Prefix
from models.generation.loop import Asked, GeneratingRunner, Ranking
from models.layers.attention import causal_mask
from models.outputs import Scores
from models.runners.text import pad

KEPT_LISTS = 16
RANK_TOKENS = 512  # decoder positions per forward pass; bounds the memory of the logits


class RankingRunner(GeneratingRunner):
    """A runner that also ranks answers."""

    @cached_property
    def _tokenised(self) -> _Latest:
        return _Latest()

    def _candidates(self, texts: tuple[str, ...]) -> list[list[int]]:
        """One list of answers is often used for many questions, and for every request of a client."""
        return self._tokenised.get(texts, lambda: [self._candidate(text) for text in texts])

    @abstractmethod
    def _candidate(self, text: str) -> list[int]:
        """The ids of a candidate, stop token last. Raises InputError."""

    @abstractmethod
    def _likelihoods(self, candidates: Sequence[list[int]], first: Tensor, known: Prefix) -> Tensor:
        """Log-likelihood of each candidate, `(candidates,)`, after the prompt in `known`, which is one row.

        `first`: log-probabilities of the first token, `(vocabulary,)`."""

    @on_device
    def score(self, batch: Sequence[Item]) -> list[Scores]:
        rankings: list[Ranking] = [item.payload.how for item in batch]
        last = [ranking.prompt[-1:] for ranking in rankings]
        cache = Cache(self.prefill(batch), [1] * len(batch))
        logits = self.decode(cache.step(last, [len(ranking.prompt) - 1 for ranking in rankings]))
        cache.advance([[0]] * len(batch))
        return [
            self._rank(ranking, scores.log_softmax(-1), cache.row(number))
            for number, (ranking, scores) in enumerate(zip(rankings, logits, strict=True))
        ]

    def _rank(self, ranking: Ranking, first: Tensor, known: Prefix) -> Scores:
        """Soft-max over the full likelihoods of the k candidates with the likeliest first token; 0 for the others."""
        candidates = ranking.candidates
        starts = first[torch.tensor([ids[0] for ids in candidates], device=self._device)]
        best: list[int] = starts.topk(min(ranking.k, len(candidates))).indices.tolist()
        best.sort(key=lambda index: len(candidates[index]))
        parts = _chunks([candidates[index] for index in best])
        scores = torch.cat([self._likelihoods(part, first, known) for part in parts])
        probabilities = torch.zeros(len(candidates))
        probabilities[best] = scores.softmax(-1).cpu()
        return probabilities.numpy()


def to_rank(ids: list[int], ranking: Ranking, history_used: int | None = None) -> Item:
    """Never batched with other items: its candidates are a batch already."""
    num_prompt_tokens = len(ids) + len(ranking.prompt)
    asked = Asked(ids, ranking)
    return Item(Op.SCORE, ranking, asked, history_used=history_used, num_prompt_tokens=num_prompt_tokens)


def likelihoods(
    logits: Callable[[Tensor, Tensor], Tensor],
    start_id: int,
    candidates: Sequence[list[int]],
    device: torch.device,
    smoothing: float = 0.0,
) -> Tensor:
    """Log-likelihood of each candidate after a start token, `(candidates,)`, with label smoothing as in training.

    `logits`: token ids `(lines, tokens)` and an attention mask -> logits `(lines, tokens, vocabulary)`."""
    ids, mask = pad([[start_id, *candidate] for candidate in candidates], device)
    log_probabilities = logits(ids[:, :-1], causal_mask(mask[:, :-1])).log_softmax(-1)
    chosen = log_probabilities.gather(-1, ids[:, 1:, None])[..., 0]
    if smoothing:
        chosen = (1 - smoothing) * chosen + smoothing * log_probabilities.mean(-1)
    return (chosen * mask[:, 1:]).sum(-1)


def _chunks(rows: Sequence[list[int]]) -> Iterator[list[list[int]]]:
    """Consecutive `rows`, shortest first, of at most RANK_TOKENS in all once padded; at least one row each."""
    chunk: list[list[int]] = []
    for row in rows:
        if chunk and len(row) * (len(chunk) + 1) > RANK_TOKENS:
            yield chunk
            chunk = []
        chunk.append(row)
    yield chunk


class _Latest:
    """The token ids of the lists of answers that were used last. By digest: the texts themselves may be megabytes."""

    def __init__(self) -> None:
        self._lists: OrderedDict[bytes, list[list[int]]] = OrderedDict()
        self._lock = Lock()  # runners prepare on several threads

    def get(self, texts: tuple[str, ...], tokenise: Callable[[], list[list[int]]]) -> list[list[int]]:
        digest = sha256("".join(f"{len(text)}:{text}" for text in texts).encode()).digest()
        with self._lock:
            found = self._lists.pop(digest, None)
        if found is None:
            found = tokenise()
        with self._lock:
            self._lists[digest] = found
            while len(self._lists) > KEPT_LISTS:
                self._lists.popitem(last=False)
        return found
