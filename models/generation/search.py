"""The search of one request: which tokens its lines (beams or samples) continue with.

Source: the beam search of transformers 4.15, which salesforce/BLIP pins (generation_beam_search.py). LAVIS pins 4.33,
whose search ends later: see `Plan.lookahead`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from models.base import InputError, Item
from models.inputs import GenerationSettings, Sampling

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Plan:
    """How one row is generated: the settings of its request, with the authors' defaults filled in."""

    prompt: tuple[int, ...]  # token ids, the start token first
    counted: tuple[int, ...]  # treated as already generated, for length and repetition penalties
    num_sequences: int
    num_beams: int
    max_new_tokens: int
    min_new_tokens: int
    length_penalty: float
    repetition_penalty: float
    sampling: Sampling | None
    lookahead: int = 0  # tokens added to the current length in the rule that ends a beam search

    @property
    def is_beam_search(self) -> bool:
        return self.num_beams > 1

    @property
    def num_lines(self) -> int:
        return self.num_beams if self.is_beam_search else self.num_sequences

    @property
    def num_first_lines(self) -> int:
        """Beams start as one line: they would all be equal."""
        return 1 if self.is_beam_search else self.num_sequences

    @property
    def num_candidates(self) -> int:
        """Per line: 2 x beams, so that enough continue even if many stop."""
        return 2 * self.num_beams if self.is_beam_search else 1


@dataclass(frozen=True, slots=True)
class GeneratedTokens:
    ids: tuple[int, ...]  # without the stop token
    confidence: float
    num_tokens: int  # with the stop token
    is_cut: bool = False  # the limit of tokens ended it


@dataclass(slots=True)
class Line:
    """One beam or sample of a row: its tokens, stop token included, and two sums over them."""

    ids: list[int] = field(default_factory=list)
    score: float = 0.0  # what the search ranks by
    log_probability: float = 0.0  # under the model, for the confidence
    stopped: bool = False

    def extended(self, token: int, score: float, log_probability: float, *, stopped: bool = False) -> Line:
        return Line([*self.ids, token], score, self.log_probability + log_probability, stopped)

    @property
    def text_ids(self) -> list[int]:
        """Without the stop token."""
        return self.ids[:-1] if self.stopped else self.ids

    def result(self) -> GeneratedTokens:
        confidence = exp(self.log_probability / len(self.ids))
        return GeneratedTokens(tuple(self.text_ids), confidence, len(self.ids), not self.stopped)


class Candidate(NamedTuple):
    """A possible next token of a line."""

    token: int
    score: float  # added to the score of the line
    log_probability: float  # added to the line's


class Row:
    """One request in generation."""

    def __init__(self, item: Item, plan: Plan) -> None:
        self.item = item
        self.plan = plan
        self.lines = [Line() for _ in range(plan.num_first_lines)]
        self.finished: list[tuple[float, Line]] = []  # beam search: (normalised score, line), at most num_beams
        self.done = False
        self.random = torch.Generator()  # per row: a seed gives the same draws in any batch
        if plan.sampling is not None and plan.sampling.seed is not None:
            self.random.manual_seed(plan.sampling.seed)
        elif plan.sampling is not None:
            self.random.seed()

    @property
    def last_tokens(self) -> list[int]:
        """The last token of each line."""
        return [line.ids[-1] if line.ids else self.plan.prompt[-1] for line in self.lines]

    @property
    def last_position(self) -> int:
        """The position of these tokens in the text."""
        return len(self.plan.prompt) - 1 + self.num_new_tokens

    @property
    def num_new_tokens(self) -> int:
        return max(len(line.ids) for line in self.lines)

    @property
    def must_continue(self) -> bool:
        """Whether the stop token is forbidden now."""
        return self.num_new_tokens < self.plan.min_new_tokens

    @property
    def is_constrained(self) -> bool:
        """Whether the search ranks tokens by anything other than their log-probabilities."""
        return self.must_continue or self.plan.repetition_penalty != 1.0

    def extend(self, candidates: Sequence[Sequence[Candidate]], stop_id: int) -> list[int]:
        """Continue with some of each line's `candidates`, best first. Returns the parent of each new line."""
        if self.plan.is_beam_search:
            return self._extend_beams(candidates, stop_id)
        self.lines = [
            line
            if line.stopped
            else line.extended(best.token, 0.0, best.log_probability, stopped=best.token == stop_id)
            for line, (best, *_) in zip(self.lines, candidates, strict=True)
        ]
        self.done = all(line.stopped for line in self.lines) or self.num_new_tokens >= self.plan.max_new_tokens
        return list(range(len(self.lines)))

    def _extend_beams(self, candidates: Sequence[Sequence[Candidate]], stop_id: int) -> list[int]:
        """Beam search among the best 2 x beams candidates of all lines; ties go to the first."""
        num_beams = self.plan.num_beams
        length = len(self.plan.counted) + self.num_new_tokens  # before this step's token
        ranked = sorted(
            (
                (line.score + one.score, parent, one)
                for parent, line in enumerate(self.lines)
                for one in candidates[parent]
            ),
            key=lambda candidate: -candidate[0],
        )
        lines: list[Line] = []
        parents: list[int] = []
        for rank, (score, parent, one) in enumerate(ranked[: 2 * num_beams]):
            if len(lines) == num_beams:
                break
            stopped = one.token == stop_id
            line = self.lines[parent].extended(one.token, score, one.log_probability, stopped=stopped)
            if not stopped:
                lines.append(line)
                parents.append(parent)
            elif rank < num_beams:
                self._keep(line, length)
        self.lines = lines
        best_running = ranked[0][0] / (length + self.plan.lookahead) ** self.plan.length_penalty
        full = len(self.finished) == num_beams
        if full and min(score for score, _ in self.finished) >= best_running:
            self.done = True
        elif self.num_new_tokens >= self.plan.max_new_tokens:
            for line in lines:
                self._keep(line, length + 1)
            self.done = True
        return parents

    def _keep(self, line: Line, length: int) -> None:
        """Add a finished line. Its score is divided by a power of its length as the authors count it: with `counted`,
        without the stop token."""
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

    The draw inverts the cumulative distribution at a uniform number from the row's own generator."""
    ordered, ids = (scores / sampling.temperature).topk(min(sampling.top_k, scores.shape[-1]), dim=-1)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)  # keeps the token that crosses top_p
    cumulative = probabilities.cumsum(-1)
    uniform = torch.rand(len(scores), 1, generator=random).to(scores.device) * cumulative[:, -1:]
    place = torch.searchsorted(cumulative, uniform, right=True).clamp(max=ids.shape[-1] - 1)
    return ids.gather(-1, place)[:, 0]


@dataclass(frozen=True, slots=True)
class Defaults:
    """The authors' values for what a request leaves out."""

    num_beams: int  # at least as many as the sequences that are asked for
    max_new_tokens: int
    min_new_tokens: int = 0
    length_penalty: float = 1.0
    sampling_penalty: float = 1.0  # of repetition; only for sampling
    lookahead: int = 0  # see `Plan`


def make_plan(
    settings: GenerationSettings, defaults: Defaults, prompt: Sequence[int], counted: Sequence[int], room: int
) -> Plan:
    """The settings with the authors' defaults filled in; at most `room` new tokens fit after the prompt."""
    sampled = settings.sampling is not None
    longest = min(_default(settings.max_new_tokens, defaults.max_new_tokens), room)
    return Plan(
        prompt=tuple(prompt),
        counted=tuple(counted),
        num_sequences=settings.num_sequences,
        num_beams=1 if sampled else _default(settings.num_beams, max(defaults.num_beams, settings.num_sequences)),
        max_new_tokens=longest,
        min_new_tokens=min(_default(settings.min_new_tokens, defaults.min_new_tokens), longest),
        length_penalty=_default(settings.length_penalty, defaults.length_penalty),
        repetition_penalty=_default(settings.repetition_penalty, defaults.sampling_penalty if sampled else 1.0),
        sampling=settings.sampling,
        lookahead=defaults.lookahead,
    )


def check_room(num_prompt_tokens: int, room: int, num_new_tokens: int = 1) -> None:
    """Raises InputError if too few new tokens fit: a prompt is never cut to make room."""
    if room < num_new_tokens:
        raise InputError(f"the prompt has {num_prompt_tokens} tokens, too many for the model")


def _default(value: Number | None, default: Number) -> Number:
    return default if value is None else value
