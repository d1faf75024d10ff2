"""The runners of BLIP: texts to tokens, networks to answers, as the authors compute them.

Source: salesforce/BLIP models/blip.py, blip_vqa.py, blip_itm.py, and train_retrieval.py for the [ENC] token of ITM.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from models.base import (
    Capabilities,
    CaptionInput,
    Generated,
    GeneratedSequence,
    GenerationSettings,
    ImageEmbeddingInput,
    Input,
    InputError,
    Item,
    ModelRunner,
    Op,
    PairInput,
    QuestionInput,
    RankInput,
    Scores,
    Task,
    TextInput,
)
from models.blip import MatchNet, VQANet
from models.cache import Prefix
from models.decoding import TokenGeneration
from models.device import on_device
from models.med import MED, KeyValue, Source, causal_mask, padding_mask
from models.runner import UnitRunner
from models.search import GeneratedTokens, Plan
from models.text import WordPiece, pad

Number = TypeVar("Number", int, float)

PROMPT = "a picture of "  # configs/caption_coco.yaml
TEXT_TOKENS = 35  # the authors' max_length of captions and questions
LABEL_SMOOTHING = 0.1  # of the answer decoder's loss, in training and in rank mode
RANK_TOKENS = 512  # decoder positions per forward pass of the rank mode: a bound on its logits' memory


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """What the tokenizer files do not hold: [DEC] starts a decoded text, [ENC] an image-grounded one."""

    dec: int
    enc: int


@dataclass(frozen=True, slots=True)
class Question:
    """The payload of a question: its ids, [ENC] first, and how to answer."""

    ids: list[int]
    plan: Plan


@dataclass(frozen=True, slots=True, eq=False)
class RankedQuestion:
    """The payload of a ranked question: candidates as ids, [DEC] first, [SEP] last."""

    ids: list[int]
    candidates: list[list[int]]
    k: int


class _Runner(UnitRunner):
    """What the three runners share."""

    def __init__(
        self, unit: str, network: Any, tokenizer: WordPiece, special: SpecialTokens, device: torch.device
    ) -> None:
        super().__init__(unit)
        self.network = network
        self._tokenizer = tokenizer
        self._special = special
        self._device = device
        self.stop_id = tokenizer.stop_id

    def _text(self, role: str, text: str, first_id: int, *, cut: bool = True) -> list[int]:
        """[first] tokens [SEP], cut as the authors do. Raises InputError: no token, or too many for one uncut."""
        ids = self._tokenizer.ids(text, first_id, limit=TEXT_TOKENS if cut else None)
        if len(ids) == 2:
            raise InputError(f"{role}: has no character that the model reads")
        if len(ids) > TEXT_TOKENS:
            raise InputError(f"{role}: has {len(ids)} tokens, at most {TEXT_TOKENS} are allowed")
        return ids

    def _unsupported(self, request: Input) -> InputError:
        return InputError(f"{self.unit} does not take {type(request).__name__}")

    def _image_states(self, features: Sequence[Tensor]) -> Tensor:
        """Features of images -> what the text looks at: `(images, tokens, width)`, after the final norm."""
        return self.network.norm(torch.stack(list(features)))

    def _grounded_states(self, rows: Sequence[list[int]], features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Texts, each grounded in its image, through the encoder: states `(texts, tokens, width)` and their mask.

        Each distinct image is projected once; its texts are query positions of one attention call."""
        images = list({id(image): image for image in features}.values())
        numbers = {id(image): number for number, image in enumerate(images)}
        order = sorted(range(len(rows)), key=lambda index: numbers[id(features[index])])
        counts = tuple(sum(image is other for other in features) for image in images)
        ids, mask = pad([rows[index] for index in order], self._device)
        source = self.network.encoder.look_at(
            self._image_states(images), lines=None if len(set(counts)) == 1 else counts
        )
        states, _ = self.network.encoder(ids, padding_mask(mask), source)
        back = torch.tensor(order, device=self._device).argsort()
        return states[back], mask[back]


class _GeneratingRunner(_Runner):
    """A runner with an answer or caption decoder: the `Decoder` of its generations."""

    @on_device
    def generate(self, batch: Sequence[Item]) -> TokenGeneration:
        return TokenGeneration(self, batch)

    def _plan(
        self, settings: GenerationSettings, prompt: Sequence[int], max_new_tokens: int, min_new_tokens: int
    ) -> Plan:
        """The settings with the authors' defaults: 3 beams; nucleus sampling with repetition penalty 1.1."""
        room = self.network.decoder.config.num_positions - len(prompt)
        if room < 1:
            raise InputError(f"the prompt has {len(prompt)} tokens; the model has {len(prompt) + room} positions")
        sampled = settings.sampling is not None
        beams = settings.num_beams if settings.num_beams is not None else max(3, settings.num_sequences)
        longest = min(_default(settings.max_new_tokens, max_new_tokens), room)
        return Plan(
            prompt=tuple(prompt),
            num_sequences=settings.num_sequences,
            num_beams=1 if sampled else beams,
            max_new_tokens=longest,
            min_new_tokens=min(_default(settings.min_new_tokens, min_new_tokens), longest),
            length_penalty=_default(settings.length_penalty, 1.0),
            repetition_penalty=_default(settings.repetition_penalty, 1.1 if sampled else 1.0),
            sampling=settings.sampling,
        )

    @abstractmethod
    def plan(self, item: Item) -> Plan: ...

    @abstractmethod
    def _source(self, batch: Sequence[Item]) -> Source:
        """What the decoder's cross-attention looks at, one row an item."""

    def prefill(self, batch: Sequence[Item]) -> Prefix:
        source = self._source(batch)
        decoder: MED = self.network.decoder
        rows = [self.plan(item).prompt[:-1] for item in batch]
        ids, mask = pad(rows, self._device, left=True)
        if not ids.shape[1]:
            size = decoder.config.width // decoder.config.num_heads
            empty = torch.empty(len(rows), decoder.config.num_heads, 0, size, dtype=decoder.dtype, device=self._device)
            return Prefix([KeyValue(empty, empty)] * decoder.config.num_layers, mask, source)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        _, past = decoder(ids, causal_mask(mask), source, positions)
        return Prefix(past, mask, source)

    def decode(
        self, ids: Tensor, positions: Tensor, mask: Tensor, source: Source | None, past: list[KeyValue] | None
    ) -> tuple[Tensor, list[KeyValue]]:
        states, past = self.network.decoder(ids, padding_mask(mask), source, positions, past)
        return self.network.head(states[:, -1], self.network.decoder.tokens), past

    def finish(self, item: Item, sequences: Sequence[GeneratedTokens]) -> Generated:  # noqa: ARG002
        return Generated(
            tuple(
                GeneratedSequence(self._tokenizer.text(tokens.ids), tokens.confidence, tokens.num_tokens)
                for tokens in sequences
            )
        )


class CaptionRunner(_GeneratingRunner):
    """The heads of a captioning checkpoint. The payload of its items is a `Plan`."""

    def prepare(self, request: Input) -> Item:
        if not isinstance(request, CaptionInput):
            raise self._unsupported(request)
        text = PROMPT if request.prompt is None else request.prompt
        prompt = self._tokenizer.ids(text, self._special.dec)[:-1]
        plan = self._plan(request.settings, prompt, max_new_tokens=20 - 4, min_new_tokens=5 - 4)
        return Item(Op.GENERATE, plan.batch_key, plan)

    def plan(self, item: Item) -> Plan:
        return item.payload

    def _source(self, batch: Sequence[Item]) -> Source:
        return self.network.decoder.look_at(self._image_states(_features(batch)))


class VQARunner(_GeneratingRunner):
    """The heads of a VQA checkpoint: answers are generated, or ranked among candidates."""

    def __init__(
        self, unit: str, network: VQANet, tokenizer: WordPiece, special: SpecialTokens, device: torch.device
    ) -> None:
        super().__init__(unit, network, tokenizer, special, device)
        # One list of answers is for many questions, and often for every request of a client.
        self._candidates = lru_cache(maxsize=16)(self._tokenise_candidates)

    def prepare(self, request: Input) -> Item:
        match request:
            case QuestionInput():
                plan = self._plan(request.settings, [self._special.dec], max_new_tokens=9, min_new_tokens=0)
                return Item(Op.GENERATE, plan.batch_key, Question(self._question(request.question), plan))
            case RankInput():
                candidates = self._candidates(request.candidates)
                question = RankedQuestion(self._question(request.question), candidates, request.k)
                return Item(Op.SCORE, question, question)  # a key of its own: its candidates are a batch already
            case _:
                raise self._unsupported(request)

    def _question(self, text: str) -> list[int]:
        return self._text("question", text, self._special.enc)

    def _tokenise_candidates(self, texts: tuple[str, ...]) -> list[list[int]]:
        return [self._text("candidate", text, self._special.dec, cut=False) for text in texts]

    def plan(self, item: Item) -> Plan:
        return item.payload.plan

    def _source(self, batch: Sequence[Item]) -> Source:
        states, mask = self._grounded_states([item.payload.ids for item in batch], _features(batch))
        return self.network.decoder.look_at(states, mask)

    @on_device
    def score(self, batch: Sequence[Item]) -> list[Scores]:
        states, mask = self._grounded_states([item.payload.ids for item in batch], _features(batch))
        return [
            self._rank(item.payload, states[number : number + 1], mask[number : number + 1])
            for number, item in enumerate(batch)
        ]

    def _rank(self, question: RankedQuestion, states: Tensor, mask: Tensor) -> Scores:
        """`rank_answer` of blip_vqa.py: the k best by first token, then by their whole likelihood; softmax of these."""
        source = self.network.decoder.look_at(states, mask)
        start = torch.tensor([[self._special.dec]], device=self._device)
        logits, _ = self.decode(start, torch.zeros_like(start), torch.ones_like(start, dtype=torch.bool), source, None)
        first = torch.tensor([ids[1] for ids in question.candidates], device=self._device)
        best = logits[0].softmax(-1)[first].topk(min(question.k, len(first))).indices
        chosen = [question.candidates[index] for index in best.tolist()]
        scores = torch.cat([self._likelihoods(part, source) for part in _chunks(chosen, RANK_TOKENS)])
        probabilities = torch.zeros(len(first), device=self._device)
        probabilities[best] = scores.softmax(-1)
        return probabilities.cpu().numpy()

    def _likelihoods(self, candidates: Sequence[list[int]], source: Source) -> Tensor:
        """Label-smoothed log-likelihood of each candidate after [DEC], [SEP] included: `(candidates,)`."""
        ids, mask = pad(candidates, self._device)
        states, _ = self.network.decoder(ids, causal_mask(mask), source)
        logits = self.network.head(states[:, :-1], self.network.decoder.tokens)
        log_probabilities = logits.log_softmax(-1)
        chosen = log_probabilities.gather(-1, ids[:, 1:, None])[..., 0]
        smoothed = (1 - LABEL_SMOOTHING) * chosen + LABEL_SMOOTHING * log_probabilities.mean(-1)
        return (smoothed * mask[:, 1:]).sum(-1)


class MatchRunner(_Runner):
    """The heads of a retrieval checkpoint: ITM logits and ITC embeddings."""

    def __init__(
        self, unit: str, network: MatchNet, tokenizer: WordPiece, special: SpecialTokens, device: torch.device
    ) -> None:
        super().__init__(unit, network, tokenizer, special, device)
        self.capabilities = Capabilities(dimensions=network.text_projection.out_features)

    def prepare(self, request: Input) -> Item:
        match request:
            case PairInput(text):
                return Item(Op.SCORE, "itm", self._text("text", text, self._special.enc))
            case TextInput(text):
                return Item(Op.SCORE, "text", self._text("text", text, self._tokenizer.first_id))
            case ImageEmbeddingInput():
                return Item(Op.SCORE, "image", None)
            case _:
                raise self._unsupported(request)

    @on_device
    def score(self, batch: Sequence[Item]) -> list[Scores]:
        rows = [item.payload for item in batch]
        match batch[0].key:
            case "itm":
                states, _ = self._grounded_states(rows, _features(batch))
                scores = self.network.itm(states[:, 0])
            case "text":
                ids, mask = pad(rows, self._device)
                states, _ = self.network.encoder(ids, padding_mask(mask))
                scores = F.normalize(self.network.text_projection(states[:, :1]), dim=-1)
            case _:
                states = self._image_states(_features(batch))
                scores = F.normalize(self.network.image_projection(states[:, :1]), dim=-1)
        return list(scores.cpu().numpy())


def _default(value: Number | None, default: Number) -> Number:
    return default if value is None else value


def _features(batch: Sequence[Item]) -> list[Tensor]:
    return [cast("Tensor", item.features) for item in batch]


def _chunks(rows: Sequence[list[int]], num_tokens: int) -> list[Sequence[list[int]]]:
    """Consecutive rows whose padded length stays within `num_tokens`, at least one row each."""
    size = max(1, num_tokens // max(len(row) for row in rows))
    return [rows[start : start + size] for start in range(0, len(rows), size)]


RUNNERS: dict[Task, Callable[[str, Any, WordPiece, SpecialTokens, torch.device], ModelRunner]] = {
    Task.CAPTION: CaptionRunner,
    Task.VQA: VQARunner,
    Task.MATCH: MatchRunner,
}
