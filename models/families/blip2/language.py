"""BLIP-2's captions and answers: a language model reads an image's projected queries, and then a prompt.

Source: LAVIS models/blip2_models/blip2_opt.py, blip2_t5.py.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.base import Capabilities, Item
from models.device import on_device
from models.families.blip2 import dialogue
from models.generation.kv_cache import Prefix, Step, empty_prefix
from models.generation.likelihood import KEY, LikelihoodRunner
from models.generation.loop import Ranking
from models.generation.ranking import RankingRunner, likelihoods, to_rank
from models.generation.search import Defaults, check_room, make_plan
from models.inputs import CaptionInput, GenerationSettings, Input, LikelihoodInput, QuestionInput, RankInput, Turn
from models.layers.attention import Source, causal_mask
from models.outputs import Scores
from models.runners.text import ImageGroups, Tokenizer, pad, readable

T5_TOKENS = 512  # the most that its encoder was trained on, the image's queries included
TEXT_TOKENS = 32  # LAVIS' max_txt_len, of candidates and of given captions


class LanguageRunner(RankingRunner, LikelihoodRunner):
    """Captions and answers, from one checkpoint: they differ in prompt and defaults."""

    caption: Defaults
    answer: Defaults

    def __init__(
        self,
        unit: str,
        network: Any,
        tokenizer: Tokenizer,
        start_id: int,
        stop_id: int,
        device: torch.device,
        max_prompt_tokens: int | None,
    ) -> None:
        """`start_id`: the token that begins the decoder's text. `max_prompt_tokens`: of longer prompts the end is cut
        off, as in LAVIS; None: never."""
        super().__init__(unit, network, tokenizer, stop_id, device, Capabilities(history=True, template=True))
        self._start_id = start_id
        self._cut = None if max_prompt_tokens is None else max_prompt_tokens - 1  # one is a special token
        self._num_queries: int = network.qformer.config.num_queries

    def prepare(self, request: Input) -> Item:
        match request:
            case CaptionInput(text, settings):
                return self._generation(self._ids(text or ""), settings, self.caption)
            case QuestionInput(question, history, template, settings):
                longest = settings.max_new_tokens or self.answer.max_new_tokens
                ids, used = self._question(question, template, history, longest)
                return self._generation(ids, settings, self.answer, used)
            case RankInput(question, texts, k, history, template):
                candidates = self._candidates(texts)
                longest = max(map(len, candidates))
                ids, used = self._question(question, template, history, longest)
                check_room(len(ids), self._room(len(ids)), longest)
                encoded, decoded = self._split(ids)
                return to_rank(encoded, Ranking(tuple(decoded), candidates, k), used)
            case LikelihoodInput(text):
                return self._given([self._start_id, *self._caption(self._tokenizer.pieces(text))], 1)
            case _:
                raise self._unsupported(request)

    def _generation(
        self, ids: list[int], settings: GenerationSettings, defaults: Defaults, history_used: int | None = None
    ) -> Item:
        room = self._room(len(ids))
        check_room(len(ids), room)
        encoded, decoded = self._split(ids)
        plan = make_plan(settings, defaults, decoded, counted=[self._start_id], room=room)
        return self._to_generate(encoded, plan, self._num_queries + len(encoded), history_used)

    @on_device
    def score(self, batch: Sequence[Item]) -> list[Scores]:
        return self._likelihoods_of(batch) if batch[0].key == KEY else super().score(batch)

    @property
    def _token_bytes(self) -> int:
        return self.network.language_model.token_bytes

    def _question(
        self, question: str, template: str | None, history: Sequence[Turn], num_new_tokens: int
    ) -> tuple[list[int], int | None]:
        """The prompt's ids, and how many turns of the history it keeps, None without one: the oldest are dropped to
        leave room for the answer."""

        def fits(turns: Sequence[Turn]) -> bool:
            text = dialogue.prompt(question, template, turns)
            whole = (
                self._cut is None or len(self._tokenizer.pieces(text)) <= self._cut
            )  # else the cut would take the question
            return whole and self._room(len(self._ids(text))) >= num_new_tokens

        turns = dialogue.latest(history, fits)
        return self._ids(dialogue.prompt(question, template, turns)), len(turns) if history else None

    def _pieces(self, text: str) -> list[int]:
        return self._tokenizer.pieces(text)[: self._cut]

    @abstractmethod
    def _ids(self, text: str) -> list[int]:
        """The prompt's token ids, with its special token."""

    @abstractmethod
    def _caption(self, pieces: list[int]) -> list[int]:
        """What follows the decoder's first token in a caption: with the stop token, cut as LAVIS does."""

    @abstractmethod
    def _split(self, ids: list[int]) -> tuple[list[int], list[int]]:
        """Of a prompt's `ids`: what the encoder reads, and what the decoder continues."""

    @abstractmethod
    def _room(self, num_prompt_tokens: int) -> int:
        """How many new tokens fit after the queries and a prompt."""

    def queries(self, batch: Sequence[Item]) -> Tensor:
        """The projected queries of each item's image, `(items, queries, width)`, computed once for each image."""
        groups = ImageGroups(batch)
        return torch.cat(self._made_of(groups, self._queries))[groups.numbers]

    def _queries(self, images: Tensor) -> Sequence[Tensor]:
        qformer = self.network.qformer
        states = qformer(qformer.look_at(self.network.norm(images.float())))
        return [one.clone() for one in self.network.projection(states).split(1)]  # a view would hold all of them


class OPTRunner(LanguageRunner):
    """The decoder reads [queries] [</s>] [prompt], and continues it."""

    caption = Defaults(num_beams=5, max_new_tokens=29, lookahead=1)
    answer = Defaults(num_beams=5, max_new_tokens=10, length_penalty=0.0, lookahead=1)

    def _ids(self, text: str) -> list[int]:
        return [self._start_id, *self._pieces(text)]

    def _caption(self, pieces: list[int]) -> list[int]:
        return [*pieces, self.stop_id][: TEXT_TOKENS - 1] if pieces else []

    def _split(self, ids: list[int]) -> tuple[list[int], list[int]]:
        return [], ids

    def _room(self, num_prompt_tokens: int) -> int:
        positions: int = self.network.language_model.config.num_positions
        return positions - self._num_queries - num_prompt_tokens

    def _candidate(self, text: str) -> list[int]:
        """With the space that a generated answer has after "Answer:"."""
        pieces = self._tokenizer.pieces(f" {text.strip()}") if text.strip() else []
        return readable("candidate", [*pieces, self.stop_id], 1, TEXT_TOKENS)

    def prefill(self, batch: Sequence[Item]) -> Prefix:
        model = self.network.language_model
        known = [item.payload.how.prompt[:-1] for item in batch]
        ids, mask = pad(known, self._device)
        x = torch.cat([self.queries(batch), model.tokens(ids)], dim=1)
        mask = F.pad(mask, (self._num_queries, 0), value=True)
        _, past = model(x, torch.arange(x.shape[1], device=self._device)[None], causal_mask(mask))
        return Prefix(past, [self._num_queries + len(one) for one in known])

    def decode(self, step: Step) -> Tensor:
        model = self.network.language_model
        positions = step.positions + self._num_queries
        states, _ = model(model.tokens(step.ids), positions, step.mask, step.past, step.lines)
        return model.logits(states[:, -1])

    def _next_logits(self, batch: Sequence[Item], ids: Tensor, mask: Tensor) -> Tensor:
        model = self.network.language_model
        x = torch.cat([self.queries(batch), model.tokens(ids)], dim=1)
        mask = F.pad(mask, (self._num_queries, 0), value=True)
        states, _ = model(x, torch.arange(x.shape[1], device=self._device)[None], causal_mask(mask))
        return model.logits(states[:, self._num_queries :])

    def _likelihoods(self, candidates: Sequence[list[int]], first: Tensor, known: Prefix) -> Tensor:
        """All candidates are one line, so that the prompt's KV cache is not copied for each; a candidate sees only the
        prompt and itself."""
        model, device = self.network.language_model, self._device
        steps = [
            (number, place, ids[place], ids[place + 1])
            for number, ids in enumerate(candidates)
            for place in range(len(ids) - 1)
        ]
        owner, place, fed, following = torch.tensor(steps, device=device).T  # (tokens,) each
        own = (owner[:, None] == owner) & (place[:, None] >= place)
        (length,) = known.lengths
        mask = F.pad(own, (length, 0), value=True)
        states, _ = model(model.tokens(fed)[None], (length + place)[None], mask[None, None], known.past)
        log_probabilities = model.logits(states[0]).log_softmax(-1)
        starts = first[torch.tensor([ids[0] for ids in candidates], device=device)]
        return starts.index_add(0, owner, log_probabilities.gather(-1, following[:, None])[:, 0])


class T5Runner(LanguageRunner):
    """The encoder reads [queries] [prompt] [</s>]; the decoder begins with its start token."""

    caption = Defaults(num_beams=5, max_new_tokens=30, lookahead=1)
    answer = Defaults(num_beams=5, max_new_tokens=10, length_penalty=-1.0, lookahead=1)

    def _ids(self, text: str) -> list[int]:
        return [*self._pieces(text), self.stop_id]

    def _caption(self, pieces: list[int]) -> list[int]:
        return [*pieces[: TEXT_TOKENS - 1], self.stop_id] if pieces else []

    def _split(self, ids: list[int]) -> tuple[list[int], list[int]]:
        return ids, [self._start_id]

    def _room(self, num_prompt_tokens: int) -> int:
        """The decoder has no limit of its own, as its positions are relative. None fit if the encoder would read too
        much."""
        return T5_TOKENS if self._num_queries + num_prompt_tokens <= T5_TOKENS else 0

    def _candidate(self, text: str) -> list[int]:
        return readable("candidate", [*self._tokenizer.pieces(text.strip()), self.stop_id], 1, TEXT_TOKENS)

    def prefill(self, batch: Sequence[Item]) -> Prefix:
        return empty_prefix(
            self._source(batch, [item.payload.ids for item in batch]), self.network.language_model.dtype
        )

    def _source(self, batch: Sequence[Item], prompts: Sequence[list[int]]) -> Source:
        """The encoded queries and prompts, one row for each item."""
        model = self.network.language_model
        ids, mask = pad(prompts, self._device)
        x = torch.cat([self.queries(batch), model.tokens(ids)], dim=1)
        mask = F.pad(mask, (self._num_queries, 0), value=True)
        source: Source = model.look_at(model.encode(x, mask), mask)
        return source

    def _next_logits(self, batch: Sequence[Item], ids: Tensor, mask: Tensor) -> Tensor:
        model = self.network.language_model
        states, _ = model.decode(ids, causal_mask(mask), self._source(batch, [self._ids("")] * len(batch)))
        return model.logits(states)

    def decode(self, step: Step) -> Tensor:
        model = self.network.language_model
        assert step.source is not None
        states, _ = model.decode(step.ids, step.mask, step.source, step.past, step.lines, step.distance)
        return model.logits(states[:, -1])

    def _likelihoods(self, candidates: Sequence[list[int]], first: Tensor, known: Prefix) -> Tensor:  # noqa: ARG002
        model = self.network.language_model

        def logits(ids: Tensor, mask: Tensor) -> Tensor:
            states, _ = model.decode(ids, mask, known.source)
            return model.logits(states)

        return likelihoods(logits, self._start_id, candidates, self._device)
