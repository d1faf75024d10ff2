"""Generation, token by token: beam search, greedy and sampling over key-value caches, in rows that come and go.

A row is one request. It has lines: its beams, or its independent samples. All rows of a `TokenGeneration` have equally
many lines, one kind of search, and one decoder; lengths, penalties and sampling are each row's own. Rows of different
age share a step: the cache is aligned on the right, and a mask hides what lies before a row's first token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from models.base import Generated, Item
from models.cache import Prefix
from models.device import on_device
from models.layers import KeyValue, Source
from models.search import GeneratedTokens, Plan, Row, sample


class Decoder(Protocol):
    """A language model as `TokenGeneration` needs it."""

    stop_id: int

    def plan(self, item: Item) -> Plan: ...

    def prefill(self, batch: Sequence[Item]) -> Prefix: ...

    def decode(
        self, ids: Tensor, positions: Tensor, mask: Tensor, source: Source | None, past: list[KeyValue]
    ) -> tuple[Tensor, list[KeyValue]]:
        """Feed one token a line, `ids` `(lines, 1)` at `positions` `(lines, 1)` of the text, which begins at 0, with
        `mask` `(lines, tokens)`.

        Returns float32 logits `(lines, vocabulary)` and the longer cache."""

    def finish(self, item: Item, sequences: Sequence[GeneratedTokens]) -> Generated: ...


def feed(decoder: Decoder, prefix: Prefix, ids: Sequence[int], positions: Sequence[int]) -> tuple[Tensor, Prefix]:
    """Give each line its next token: float32 logits `(lines, vocabulary)` of the one after, and what is known then."""
    device = prefix.mask.device
    mask = F.pad(prefix.mask, (0, 1), value=True)
    logits, past = decoder.decode(
        torch.tensor(ids, device=device)[:, None],
        torch.tensor(positions, device=device)[:, None],
        mask,
        prefix.source,
        prefix.past,
    )
    return logits, Prefix(past, mask, prefix.source)


class TokenGeneration:
    """The running generation of one batch key: see `models.base.Generation`."""

    def __init__(self, decoder: Decoder, batch: Sequence[Item]) -> None:
        self._decoder = decoder
        self._rows: list[Row] = []
        self._state: Prefix | None = None  # of all lines; its source has one row for each row
        self.admit(batch)

    def __len__(self) -> int:
        return len(self._rows)

    @on_device
    def admit(self, batch: Sequence[Item]) -> None:
        rows = [Row(item, self._decoder.plan(item)) for item in batch]
        prefix = self._decoder.prefill(batch)
        num_lines = rows[0].plan.num_lines
        numbers = torch.arange(len(rows), device=prefix.mask.device)
        lines = prefix.lines(numbers.repeat_interleave(num_lines))
        self._state = lines if self._state is None else self._state.join(lines)
        self._rows += rows

    @on_device
    def drop(self, item: Item) -> None:
        self._keep([number for number, row in enumerate(self._rows) if row.item is not item])

    @on_device
    def step(self) -> list[tuple[Item, Generated]]:
        assert self._state is not None
        lines = [(row, line) for row in self._rows for line in row.lines]
        last = [line.ids[-1] if line.ids else row.plan.prompt[-1] for row, line in lines]
        positions = [len(row.plan.prompt) - 1 + len(line.ids) for row, line in lines]
        logits, self._state = feed(self._decoder, self._state, last, positions)
        logits = logits.view(len(self._rows), -1, logits.shape[-1])
        if self._rows[0].plan.is_beam_search:
            self._extend_beams(logits)
        else:
            self._extend_lines(logits)
        finished = [row for row in self._rows if row.done]
        if finished:
            self._keep([number for number, row in enumerate(self._rows) if not row.done])
        return [(row.item, self._decoder.finish(row.item, row.results())) for row in finished]

    def _extend_beams(self, logits: Tensor) -> None:
        """`logits`: `(rows, beams, vocabulary)`."""
        num_rows, num_beams, vocabulary = logits.shape
        log_probabilities = logits.log_softmax(-1)
        scores = self._constrain(log_probabilities.clone())
        running = torch.tensor([[line.score for line in row.lines] for row in self._rows], device=logits.device)
        totals = (scores + running[..., None]).view(num_rows, -1)
        best, index = totals.topk(2 * num_beams, dim=-1)
        chosen = self._where_allowed(logits, log_probabilities).view(num_rows, -1).gather(1, index)
        parents: list[int] = []
        for number, (row, *columns) in enumerate(
            zip(self._rows, best.tolist(), index.tolist(), chosen.tolist(), strict=True)
        ):
            candidates = [(s, i // vocabulary, i % vocabulary, c) for s, i, c in zip(*columns, strict=True)]
            own = row.extend_beams(candidates, self._decoder.stop_id)
            parents += [number * num_beams + parent for parent in own]
        assert self._state is not None
        self._state = self._state.lines(torch.tensor(parents, device=logits.device))

    def _extend_lines(self, logits: Tensor) -> None:
        """`logits`: `(rows, lines, vocabulary)`."""
        scores = self._constrain(logits.clone())
        tokens = scores.argmax(-1)
        for number, row in enumerate(self._rows):
            if row.plan.sampling is not None:
                tokens[number] = sample(scores[number], row.plan.sampling, row.random)
        log_probabilities = self._where_allowed(logits, logits.log_softmax(-1))
        chosen = log_probabilities.gather(-1, tokens[..., None])[..., 0]
        for row, ids, confidences in zip(self._rows, tokens.tolist(), chosen.tolist(), strict=True):
            row.extend_lines(ids, confidences, self._decoder.stop_id)

    def _constrain(self, scores: Tensor) -> Tensor:
        """Repetition penalty (Keskar et al. 2019) and minimum length, in place, in the authors' order."""
        for number, row in enumerate(self._rows):
            penalty = row.plan.repetition_penalty
            if penalty != 1.0:
                for line, line_scores in zip(row.lines, scores[number], strict=True):
                    seen = torch.tensor(sorted({*row.plan.counted, *line.ids}), device=scores.device)
                    values = line_scores[seen]
                    penalised = torch.where(values < 0, values * penalty, values / penalty)
                    line_scores[seen] = penalised.nan_to_num()  # a tiny penalty must not make it infinite
            if row.must_continue:
                scores[number, :, self._decoder.stop_id] = -torch.inf
        return scores

    def _where_allowed(self, logits: Tensor, log_probabilities: Tensor) -> Tensor:
        """For the confidence: with the stop token where it is allowed, before every penalty and temperature."""
        forbidden = [row.must_continue for row in self._rows]
        if not any(forbidden):
            return log_probabilities
        logits = logits.clone()
        logits[torch.tensor(forbidden, device=logits.device), :, self._decoder.stop_id] = -torch.inf
        return logits.log_softmax(-1)

    def _keep(self, numbers: list[int]) -> None:
        assert self._state is not None
        num_lines = self._rows[0].plan.num_lines if self._rows else 1
        device = self._state.mask.device
        rows = torch.tensor(numbers, dtype=torch.long, device=device)
        lines = (rows[:, None] * num_lines + torch.arange(num_lines, device=device)).flatten()
        self._state = self._state.lines(lines).rows(rows)
        self._rows = [self._rows[number] for number in numbers]
