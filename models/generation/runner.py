"""What the generating runners of all families share: plans with the authors' defaults, and tokens to text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from models.base import Capabilities, Generated, GeneratedSequence, GenerationSettings, InputError, Item, Op
from models.device import on_device
from models.generation.kv_cache import Prefix, Step
from models.generation.loop import TokenGeneration
from models.generation.search import GeneratedTokens, Plan
from models.runners.text import Tokenizer
from models.runners.unit import HeadsRunner

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Defaults:
    """The authors' values for what a request leaves out."""

    num_beams: int  # at least as many as the sequences that are asked for
    max_new_tokens: int
    min_new_tokens: int = 0
    length_penalty: float = 1.0
    sampling_penalty: float = 1.0  # of repetition; only for sampling
    lookahead: int = 0  # see `Plan`


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
        super().__init__(unit, network, device, capabilities)
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
        num_tokens = num_read_tokens + len(plan.prompt) + plan.num_lines * plan.max_new_tokens
        cache_bytes = num_tokens * self._token_bytes
        return Item(Op.GENERATE, None, Asked(ids, plan), history_used=history_used, cache_bytes=cache_bytes)

    def plan(self, item: Item) -> Plan:
        return item.payload.how

    @abstractmethod
    def prefill(self, batch: Sequence[Item]) -> Prefix: ...

    @abstractmethod
    def decode(self, step: Step) -> Tensor: ...

    def finish(self, item: Item, sequences: Sequence[GeneratedTokens]) -> Generated:  # noqa: ARG002
        return Generated(
            tuple(
                GeneratedSequence(self._tokenizer.text(tokens.ids), tokens.confidence, tokens.num_tokens)
                for tokens in sequences
            )
        )


def _default(value: Number | None, default: Number) -> Number:
    return default if value is None else value
