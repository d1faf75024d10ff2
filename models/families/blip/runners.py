"""BLIP's runners: one for each kind of checkpoint.

Source: salesforce/BLIP models/blip.py, blip_vqa.py, blip_itm.py; train_retrieval.py for ITM's [ENC] token;
eval_retrieval_video.py for videos.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from transformers import BlipConfig

from models.base import SPACES, Capabilities, InputError, Item, Localizing, ModelRunner, Op, Task
from models.device import on_device, on_device_with_gradients
from models.families.family import RunnerParts
from models.generation.kv_cache import Prefix, Step, empty_prefix
from models.generation.likelihood import LikelihoodRunner
from models.generation.loop import GeneratingRunner, Ranking
from models.generation.ranking import RankingRunner, likelihoods, to_rank
from models.generation.search import Defaults, Plan, check_room, make_plan
from models.inputs import (
    CaptionInput,
    GenerationSettings,
    Input,
    LikelihoodInput,
    LocalizeInput,
    QuestionInput,
    RankInput,
)
from models.layers.attention import Source, causal_mask, padding_mask
from models.layers.linear import Int8Linear
from models.layers.rows import source_of
from models.outputs import Localized, Scores
from models.runners.matching import MatchingRunner
from models.runners.text import ImageGroups, WordPiece, pad, readable
from models.weights import CheckpointError

PROMPT = "a picture of "  # configs/caption_coco.yaml
TEXT_TOKENS = 35  # the authors' max_length of captions and questions
GIVEN_TOKENS = 40  # and of captions whose loss they compute, prompt included
LABEL_SMOOTHING = 0.1  # of the answer decoder's loss, when training and when ranking
# The authors' lengths count the four tokens of their prompt; ours do not.
CAPTION = Defaults(num_beams=3, max_new_tokens=20 - 4, min_new_tokens=5 - 4, sampling_penalty=1.1)
ANSWER = Defaults(num_beams=3, max_new_tokens=9, sampling_penalty=1.1)


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Tokens that are not in the tokenizer files: [DEC] starts a text to decode, [ENC] one that looks at an image."""

    dec: int
    enc: int


class _DecodingRunner(GeneratingRunner):
    """Generates with MED as the decoder."""

    _tokenizer: WordPiece

    def __init__(
        self, unit: str, network: Any, tokenizer: WordPiece, special: SpecialTokens, device: torch.device
    ) -> None:
        super().__init__(unit, network, tokenizer, tokenizer.stop_id, device)
        self._special = special

    def _plan(self, settings: GenerationSettings, defaults: Defaults, prompt: list[int]) -> Plan:
        room = self.network.decoder.config.num_positions - len(prompt)
        check_room(len(prompt), room)
        return make_plan(settings, defaults, prompt, counted=prompt, room=room)

    @property
    def _token_bytes(self) -> int:
        return self.network.decoder.token_bytes

    @abstractmethod
    def _source(self, batch: Sequence[Item]) -> Source:
        """What the decoder's cross-attention looks at, one row per item."""

    def prefill(self, batch: Sequence[Item]) -> Prefix:
        source = self._source(batch)
        known = [item.payload.how.prompt[:-1] for item in batch]
        ids, mask = pad(known, self._device)
        if not ids.shape[1]:
            return empty_prefix(source, self.network.decoder.dtype)
        _, past = self.network.decoder(ids, causal_mask(mask), source)
        return Prefix(past, [len(one) for one in known], source)

    def decode(self, step: Step) -> Tensor:
        decoder = self.network.decoder
        states, _ = decoder(step.ids, step.mask, step.source, step.positions, step.past, step.lines)
        return self.network.head(states[:, -1], decoder.tokens)


class CaptionRunner(_DecodingRunner, LikelihoodRunner):
    """The heads of a captioning checkpoint: the decoder looks at the image. It writes captions, or reads given ones."""

    def prepare(self, request: Input) -> Item:
        match request:
            case CaptionInput(text, settings):
                plan = self._plan(settings, CAPTION, self._prompt(PROMPT if text is None else text))
                return self._to_generate([], plan, self.network.num_image_tokens)
            case LikelihoodInput(text):
                ids = self._tokenizer.ids(PROMPT + text, self._special.dec, GIVEN_TOKENS)
                return self._given(ids, len(self._prompt(PROMPT)))
            case _:
                raise self._unsupported(request)

    def _prompt(self, text: str) -> list[int]:
        return self._tokenizer.ids(text, self._special.dec)[:-1]

    @on_device
    def score(self, batch: Sequence[Item]) -> list[Scores]:
        return self._likelihoods_of(batch)

    def _next_logits(self, batch: Sequence[Item], ids: Tensor, mask: Tensor) -> Tensor:
        groups, decoder = ImageGroups(batch), self.network.decoder
        source = self._looked_at(groups, self._look_at)
        order = groups.order.to(ids.device)
        states, _ = decoder(ids[order], causal_mask(mask[order]), source)
        return self.network.head(groups.unsort(states), decoder.tokens)

    def _source(self, batch: Sequence[Item]) -> Source:
        groups = ImageGroups(batch)
        layers = self._layers_of(groups, self._look_at)
        return source_of([layers[number] for number in groups.numbers])

    def _look_at(self, features: Tensor) -> Source:
        return self.network.decoder.look_at(self.network.norm(features))


class VQARunner(_DecodingRunner, RankingRunner):
    """The heads of a VQA checkpoint: the decoder looks at the encoded question. Answers are generated, or ranked."""

    def prepare(self, request: Input) -> Item:
        start = [self._special.dec]
        match request:
            case QuestionInput(question, settings=settings):
                ids = self._question(question)
                return self._to_generate(ids, self._plan(settings, ANSWER, start), len(ids))
            case RankInput(question, candidates, k):
                return to_rank(self._question(question), Ranking(tuple(start), self._candidates(candidates), k))
            case _:
                raise self._unsupported(request)

    def _question(self, text: str) -> list[int]:
        """[ENC] tokens [SEP], truncated as the authors do. Raises InputError."""
        return readable("question", self._tokenizer.ids(text, self._special.enc, TEXT_TOKENS), 2, TEXT_TOKENS)

    def _candidate(self, text: str) -> list[int]:
        return readable("candidate", self._tokenizer.ids(text), 2, TEXT_TOKENS)[1:]

    def _source(self, batch: Sequence[Item]) -> Source:
        groups = ImageGroups(batch)
        source = self._looked_at(groups, partial(_look_at, self.network))
        states, mask = _encode_grounded(self.network, groups, [item.payload.ids for item in batch], source)
        return self.network.decoder.look_at(states, mask)

    def _likelihoods(self, candidates: Sequence[list[int]], first: Tensor, known: Prefix) -> Tensor:  # noqa: ARG002
        decoder = self.network.decoder

        def logits(ids: Tensor, mask: Tensor) -> Tensor:
            states, _ = decoder(ids, mask, known.source)
            return self.network.head(states, decoder.tokens)

        return likelihoods(logits, self._special.dec, candidates, self._device, LABEL_SMOOTHING)


class MatchRunner(MatchingRunner):
    """The heads of an image-text matching checkpoint."""

    text_tokens = TEXT_TOKENS

    def __init__(
        self, unit: str, network: Any, tokenizer: WordPiece, special: SpecialTokens, device: torch.device
    ) -> None:
        capabilities = replace(_localizing(network), spaces=SPACES, video=True)
        super().__init__(unit, network, tokenizer, device, capabilities)
        self._pair_id = special.enc

    def prepare(self, request: Input) -> Item:
        if not isinstance(request, LocalizeInput) or self.capabilities.localizing is None:
            return super().prepare(request)
        num_layers, layer = self.capabilities.localizing.num_layers, request.layer
        if layer is None:
            layer = self.capabilities.localizing.default
        if layer > num_layers - 2:
            raise InputError(f"layer: must be 0 to {num_layers - 2} of {num_layers}: the last one has no gradient")
        return Item(Op.LOCALIZE, layer, self._text(request.text, self._pair_id))

    @on_device_with_gradients
    def localize(self, batch: Sequence[Item]) -> list[Localized]:
        groups, texts = ImageGroups(batch), [item.payload for item in batch]  # the stacked images are a copy
        # Not what is kept: without gradients it was made for none.
        source = replace(_look_at(self.network, groups.images), lines=groups.lines)
        source, watched = source.watching(cast("int", batch[0].key))
        states, _ = _encode_grounded(self.network, groups, texts, source)
        logits = self.network.itm(states[:, 0])
        heat = groups.unsort(watched.heat(logits[:, 1].sum(), groups.lines, states.shape[1]))[..., 1:].cpu()
        side = math.isqrt(heat.shape[-1])  # in patches; the class token is left out
        return [
            Localized(
                self._tokenizer.names(ids[1:-1]),
                own[1 : len(ids) - 1].reshape(-1, side, side).numpy(),
                pair.numpy(),
            )
            for ids, own, pair in zip(texts, heat, logits.detach().cpu(), strict=True)
        ]

    def _itm(self, batch: Sequence[Item]) -> Tensor:
        states, _ = self._pair_states(batch)
        return self.network.itm(states[:, 0])

    def _pair_states(self, batch: Sequence[Item]) -> tuple[Tensor, Tensor]:
        groups = ImageGroups(batch)
        source = self._looked_at(groups, partial(_look_at, self.network))
        return _encode_grounded(self.network, groups, [item.payload for item in batch], source)

    def _text_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        states, _ = self.network.encoder(ids, padding_mask(mask))
        return states

    def _image_tokens(self, batch: Sequence[Item]) -> Tensor:
        groups = ImageGroups(batch)
        return self.network.norm(groups.images)[groups.numbers]

    def _image_states(self, batch: Sequence[Item]) -> Tensor:
        """The class token; of a video the mean over its frames, whose projection is the mean of the projections."""
        groups = ImageGroups(batch)
        num_images, _, width = groups.images.shape
        frames = groups.images.view(num_images, groups.num_frames, -1, width)
        return self.network.norm(frames[:, :, 0]).float().mean(1, keepdim=True)[groups.numbers]


def _localizing(network: Any) -> Capabilities:
    if any(isinstance(part, Int8Linear) for part in network.modules()):
        return Capabilities(lacks={Task.LOCALIZE: "products in int8 have no gradient; served in bf16 or fp32 it has"})
    num_layers = network.encoder.config.num_layers
    if num_layers < 2:
        return Capabilities(lacks={Task.LOCALIZE: "its text encoder has one layer, and the last has no gradient"})
    # LAVIS' default is the seventh of twelve.
    return Capabilities(localizing=Localizing(num_layers, max(0, 7 * num_layers // 12 - 1)))


def _look_at(network: Any, features: Tensor) -> Source:
    return network.encoder.look_at(network.norm(features))


def _encode_grounded(
    network: Any, groups: ImageGroups, texts: Sequence[list[int]], source: Source
) -> tuple[Tensor, Tensor]:
    """Texts through the encoder, each looking at its image: states `(texts, tokens, width)` and the padding mask
    `(texts, tokens)`, in the order of the batch. `source`: of the images."""
    ids, mask = pad(groups.sort(texts), groups.images.device)
    states, _ = network.encoder(ids, padding_mask(mask), source)
    return groups.unsort(states), groups.unsort(mask)


_RUNNERS: dict[Task, Callable[[str, Any, WordPiece, SpecialTokens, torch.device], ModelRunner]] = {
    Task.CAPTION: CaptionRunner,
    Task.VQA: VQARunner,
    Task.MATCH: MatchRunner,
}


def make_runner(parts: RunnerParts) -> ModelRunner:
    """The runner of a loaded checkpoint. Raises CheckpointError if the tokenizer belongs to another checkpoint."""
    tokenizer = WordPiece(parts.folder)
    special = _special_tokens(parts.config, tokenizer)
    return _RUNNERS[parts.task](parts.unit, parts.network, tokenizer, special, parts.device)


def _special_tokens(config: BlipConfig, tokenizer: WordPiece) -> SpecialTokens:
    """[DEC] is the first id after BERT's vocabulary, [ENC] the next. Raises CheckpointError."""
    text = config.text_config
    special = SpecialTokens(dec=text.bos_token_id, enc=text.bos_token_id + 1)
    if special.enc >= text.vocab_size:
        raise CheckpointError(f"[ENC] is {special.enc}, but the vocabulary has {text.vocab_size} entries")
    if tokenizer.stop_id != text.sep_token_id or not special.dec <= len(tokenizer) <= text.vocab_size:
        raise CheckpointError(
            f"the tokenizer ({len(tokenizer)} entries, [SEP] {tokenizer.stop_id}) is not the one of config.json "
            f"({special.dec} entries before [DEC], [SEP] {text.sep_token_id})"
        )
    return special
