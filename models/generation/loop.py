"""Generation, token by token: beam search, greedy search and sampling over a KV cache, in rows that join and leave.

A row is one request. Its lines are its beams, or its independent samples. Rows of any age and any settings share each
step of one decoder: each has its own number of lines, kind of search, lengths, penalties and sampling.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from models.base import Capabilities, Item, Op
from models.device import on_device
from models.generation.kv_cache import Cache, Prefix, Step
from models.generation.search import Candidate, GeneratedTokens, Plan, Row, sample
from models.outputs import Generated, GeneratedSequence
from models.runners.text import Tokenizer
from models.runners.unit import HeadsRunner

ENOUGH_IMAGES = 16  # that a step on a CPU is about: see docs/performance.md


class Decoder(Protocol):
    """A language model as `TokenGeneration` needs it."""

    stop_id: int

    def plan(self, item: Item) -> Plan: ...

    def prefill(self, batch: Sequence[Item]) -> Prefix:
        """Run all but the last token of each prompt."""

    def decode(self, step: Step) -> Tensor:
        """Feed one token a line. Returns float32 logits of the next, `(lines, vocabulary)`."""

    def settled(self, ids: Sequence[int]) -> str:
        """The part of their text that no further token changes."""

    def finish(self, item: Item, sequences: Sequence[GeneratedTokens]) -> Generated: ...


class TokenGeneration:
    """The running generation of one unit: see `models.base.Generation`."""

    def __init__(self, decoder: Decoder, batch: Sequence[Item]) -> None:
        self._decoder = decoder
        self._rows: list[Row] = []
        self._cache: Cache | None = None  # of the rows, in their order
        self.admit(batch)

    def __len__(self) -> int:
        return len(self._rows)

    @on_device
    def admit(self, batch: Sequence[Item]) -> None:
        rows = [Row(item, self._decoder.plan(item)) for item in batch]
        prefix, num_lines = self._decoder.prefill(batch), [len(row.lines) for row in rows]
        if self._cache is None:
            self._cache = Cache(prefix, num_lines)
        else:
            self._cache.add(prefix, num_lines)
        self._rows += rows

    @on_device
    def drop(self, item: Item) -> None:
        self._keep([number for number, row in enumerate(self._rows) if row.item is not item])

    @on_device
    def step(self) -> list[tuple[Item, Generated]]:
        assert self._cache is not None
        tokens, positions = [row.last_tokens for row in self._rows], [row.last_position for row in self._rows]
        logits = self._decoder.decode(self._cache.step(tokens, positions))
        candidates = self._candidates(logits)
        self._cache.advance(
            [
                row.extend(candidates[own], self._decoder.stop_id)
                for row, own in zip(self._rows, list(self._lines()), strict=True)
            ]
        )
        self._tell()
        finished = [row for row in self._rows if row.done]
        if finished:
            self._keep([number for number, row in enumerate(self._rows) if not row.done])
        return [(row.item, self._decoder.finish(row.item, row.results())) for row in finished]

    def _tell(self) -> None:
        """What the rows that go on have so far, where somebody asked for it. Beams may still be given up."""
        for row in self._rows:
            if row.item.tell is not None and not row.done and not row.plan.is_beam_search:
                row.item.tell([self._decoder.settled(line.text_ids) for line in row.lines])

    def _lines(self) -> Iterator[slice]:
        """The place of each row's lines among the lines of all rows."""
        bounds = accumulate((len(row.lines) for row in self._rows), initial=0)
        return (slice(*pair) for pair in pairwise(bounds))

    def _candidates(self, logits: Tensor) -> list[list[Candidate]]:
        """The best next tokens of each line, best first; `logits`: `(lines, vocabulary)`."""
        scores, log_probabilities = self._scores(logits)
        best, tokens = scores.topk(max(row.plan.num_candidates for row in self._rows))
        for row, own in zip(self._rows, self._lines(), strict=True):
            if row.plan.sampling is not None:
                tokens[own, 0] = sample(scores[own], row.plan.sampling, row.random)
        columns = tokens.tolist(), best.tolist(), log_probabilities.gather(1, tokens).tolist()
        return [[Candidate(*one) for one in zip(*line, strict=True)] for line in zip(*columns, strict=True)]

    def _scores(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The scores that the search ranks tokens by, and the log-probabilities for the confidence: before penalties
        and temperature, and without the stop token where it is forbidden."""
        log_probabilities = logits.log_softmax(-1)
        if not any(row.is_constrained for row in self._rows):
            return log_probabilities, log_probabilities
        scores = log_probabilities.clone()
        for row, own in zip(self._rows, self._lines(), strict=True):
            if row.plan.repetition_penalty != 1.0:
                if not row.plan.is_beam_search:  # as transformers does: log-probabilities for beams, else logits
                    scores[own] = logits[own]
                for line, line_scores in zip(row.lines, scores[own], strict=True):
                    _penalise(line_scores, {*row.plan.counted, *line.ids}, row.plan.repetition_penalty)
            if row.must_continue:
                scores[own, self._decoder.stop_id] = -torch.inf
                allowed = logits[own].clone()
                allowed[:, self._decoder.stop_id] = -torch.inf
                log_probabilities[own] = allowed.log_softmax(-1)
        return scores, log_probabilities

    def _keep(self, numbers: list[int]) -> None:
        assert self._cache is not None
        self._rows = [self._rows[number] for number in self._cache.keep(numbers)]


def _penalise(scores: Tensor, seen: set[int], penalty: float) -> None:
    """Of one line, in place: make tokens that it has seen less likely (Keskar et al. 2019)."""
    ids = torch.tensor(sorted(seen), device=scores.device)
    values = scores[ids]
    penalised = torch.where(values < 0, values * penalty, values / penalty)
    scores[ids] = penalised.nan_to_num()  # a tiny penalty must not make it infinite


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Candidates as token ids, stop token last; only the `k` with the likeliest first token are scored in full."""

    prompt: tuple[int, ...]  # as in `Plan`
    candidates: list[list[int]]
    k: int


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """The payload of an item: ids for an encoder (BLIP's question, T5's prompt; else none), and what to decode."""

    ids: list[int]
    how: Plan | Ranking


class GeneratingRunner(HeadsRunner):
    """A runner that generates text and is the `Decoder` of its own generations. Its items' payloads are `Asked`."""

    def __init__(
        self,
        unit: str,
        network: Any,
        tokenizer: Tokenizer,
        stop_id: int,
        device: torch.device,
        capabilities: Capabilities | None = None,
    ) -> None:
        own = capabilities or Capabilities()
        enough_images = ENOUGH_IMAGES if device.type == "cpu" else None
        super().__init__(unit, network, device, replace(own, enough_images=enough_images, keeps=True))
        self._tokenizer = tokenizer
        self.stop_id = stop_id

    @on_device
    def generate(self, batch: Sequence[Item]) -> TokenGeneration:
        return TokenGeneration(self, batch)

    @property
    @abstractmethod
    def _token_bytes(self) -> int:
        """Size of one token's keys and values in the decoder."""

    def _to_generate(self, ids: list[int], plan: Plan, num_read_tokens: int, history_used: int | None = None) -> Item:
        """`num_read_tokens`: tokens before the prompt, or that the cross-attention attends to."""
        num_prompt_tokens = num_read_tokens + len(plan.prompt)
        num_tokens = num_prompt_tokens + plan.num_lines * plan.max_new_tokens
        return Item(
            Op.GENERATE,
            None,
            Asked(ids, plan),
            history_used=history_used,
            cache_bytes=num_tokens * self._token_bytes,
            num_new_tokens=plan.max_new_tokens,
            num_prompt_tokens=num_prompt_tokens,
        )

    def plan(self, item: Item) -> Plan:
        return item.payload.how

    @abstractmethod
    def prefill(self, batch: Sequence[Item]) -> Prefix: ...

    @abstractmethod
    def decode(self, step: Step) -> Tensor: ...

    def settled(self, ids: Sequence[int]) -> str:
        return self._tokenizer.settled(ids)

    def finish(self, item: Item, sequences: Sequence[GeneratedTokens]) -> Generated:  # noqa: ARG002
        return Generated(
            tuple(
                GeneratedSequence(self._tokenizer.text(tokens.ids), tokens.confidence, tokens.num_tokens, tokens.is_cut)
                for tokens in sequences
            )
        )
