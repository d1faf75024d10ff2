"""The search of one request: which tokens its lines, beams or samples, go on with.

Source: the beam search of transformers 4.15, which salesforce/BLIP pins (generation_beam_search.py). LAVIS pins 4.33,
which has it end later: see `Plan.lookahead`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp

import torch
from torch import Tensor

from models.base import Item, Sampling

INACTIVE = -1e9  # the first score of beams 1, 2, ...: all lines start equal, so only one may count


@dataclass(frozen=True, slots=True)
class Plan:
    """How one row is generated: the settings of its request, with the authors' defaults filled in."""

    prompt: tuple[int, ...]  # token ids, the start token first
    counted: tuple[int, ...]  # what the authors' search takes for generated before: its length and repetitions count
    num_sequences: int
    num_beams: int
    max_new_tokens: int
    min_new_tokens: int
    length_penalty: float
    repetition_penalty: float
    sampling: Sampling | None
    lookahead: int = 0  # tokens beyond the present length at which the end of a search is judged

    @property
    def num_lines(self) -> int:
        return self.num_beams if self.is_beam_search else self.num_sequences

    @property
    def is_beam_search(self) -> bool:
        return self.num_beams > 1

    @property
    def batch_key(self) -> tuple[bool, int]:
        """What rows of one `TokenGeneration` have in common."""
        return self.is_beam_search, self.num_lines


@dataclass(frozen=True, slots=True)
class GeneratedTokens:
    ids: tuple[int, ...]  # without the stop token
    confidence: float
    num_tokens: int  # with the stop token


@dataclass(slots=True)
class Line:
    """One beam or sample of a row: its tokens, stop token included, and two sums over them."""

    ids: list[int] = field(default_factory=list)
    score: float = 0.0  # what the search ranks by
    log_probability: float = 0.0  # of the model, for the confidence
    stopped: bool = False

    def extended(self, token: int, score: float, log_probability: float, *, stopped: bool = False) -> Line:
        return Line([*self.ids, token], score, self.log_probability + log_probability, stopped)

    def result(self) -> GeneratedTokens:
        ids = self.ids[:-1] if self.stopped else self.ids
        confidence = exp(self.log_probability / len(self.ids))
        return GeneratedTokens(tuple(ids), confidence, len(self.ids))


class Row:
    """One request in generation."""

    def __init__(self, item: Item, plan: Plan) -> None:
        self.item = item
        self.plan = plan
        self.lines = [Line(score=INACTIVE if n and plan.is_beam_search else 0.0) for n in range(plan.num_lines)]
        self.finished: list[tuple[float, Line]] = []  # beam search: (normalised score, line), at most num_beams
        self.done = False
        self.random = torch.Generator()  # of its own: a seed repeats whatever else is in the batch
        if plan.sampling is not None and plan.sampling.seed is not None:
            self.random.manual_seed(plan.sampling.seed)
        elif plan.sampling is not None:
            self.random.seed()

    @property
    def num_new_tokens(self) -> int:
        return max(len(line.ids) for line in self.lines)

    @property
    def must_continue(self) -> bool:
        """Whether the stop token is forbidden now."""
        return self.num_new_tokens < self.plan.min_new_tokens

    def extend_lines(self, tokens: Sequence[int], log_probabilities: Sequence[float], stop_id: int) -> None:
        """Independent lines: each takes its token, unless it has stopped."""
        self.lines = [
            line if line.stopped else line.extended(token, 0.0, log_probability, stopped=token == stop_id)
            for line, token, log_probability in zip(self.lines, tokens, log_probabilities, strict=True)
        ]
        self.done = all(line.stopped for line in self.lines) or self.num_new_tokens >= self.plan.max_new_tokens

    def extend_beams(self, candidates: Sequence[tuple[float, int, int, float]], stop_id: int) -> list[int]:
        """Beam search: go on with the best of 2 x beams `candidates` (score, parent line, token, log-probability).

        They come best first. Returns the parent of each new line."""
        num_beams = self.plan.num_beams
        length = len(self.plan.counted) + self.num_new_tokens  # before this step's token
        lines: list[Line] = []
        parents: list[int] = []
        for rank, (score, parent, token, log_probability) in enumerate(candidates):
            if len(lines) == num_beams:
                break
            stopped = token == stop_id
            line = self.lines[parent].extended(token, score, log_probability, stopped=stopped)
            if not stopped:
                lines.append(line)
                parents.append(parent)
            elif rank < num_beams:
                self._keep(line, length)
        self.lines = lines
        best_running = candidates[0][0] / (length + self.plan.lookahead) ** self.plan.length_penalty
        full = len(self.finished) == num_beams
        if full and min(score for score, _ in self.finished) >= best_running:
            self.done = True
        elif self.num_new_tokens >= self.plan.max_new_tokens:
            for line in lines:
                self._keep(line, length + 1)
            self.done = True
        return parents

    def _keep(self, line: Line, length: int) -> None:
        """The authors' length rule: what was there before counts, the stop token does not."""
        score = line.score / length**self.plan.length_penalty
        if len(self.finished) < self.plan.num_beams:
            self.finished.append((score, line))
            return
        worst = min(range(len(self.finished)), key=lambda index: self.finished[index][0])
        if score > self.finished[worst][0]:
            del self.finished[worst]
            self.finished.append((score, line))

    def results(self) -> list[GeneratedTokens]:
        if self.plan.is_beam_search:
            best_last = sorted(self.finished, key=lambda kept: kept[0])
            return [line.result() for _, line in reversed(best_last[-self.plan.num_sequences :])]
        return [line.result() for line in self.lines]


def sample(scores: Tensor, sampling: Sampling, random: torch.Generator) -> Tensor:
    """One token a line from `scores` `(lines, vocabulary)`: temperature, top k, top p (Holtzman et al. 2020), a draw.

    The draw inverts the cumulative distribution at a uniform number of the row's own generator."""
    ordered, ids = (scores / sampling.temperature).topk(min(sampling.top_k, scores.shape[-1]), dim=-1)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)  # the first that passes top_p stays
    cumulative = probabilities.cumsum(-1)
    uniform = torch.rand(len(scores), 1, generator=random).to(scores.device) * cumulative[:, -1:]
    place = torch.searchsorted(cumulative, uniform, right=True).clamp(max=ids.shape[-1] - 1)
    return ids.gather(-1, place)[:, 0]
