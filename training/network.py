"""The three models in training: one tower, and the text transformers around it (Li et al. 2022, section 3.1)."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.families.blip.med import MED, LMHead
from models.layers.attention import BertConfig, Source, causal_mask, padding_mask
from models.layers.linear import Head, LayerNorm
from models.layers.vit import ViT, ViTConfig
from training import vocabulary
from training.data import Texts
from training.scenes import IMAGE_SIZE
from training.vocabulary import SHAPES, Vocabulary

PROJECTION = 64
LABEL_SMOOTHING = 0.1  # as the authors
NUM_POSITIONS = 320

WIDTH = 128
TOWER = ViTConfig(IMAGE_SIZE, 8, WIDTH, num_layers=4, num_heads=4, mlp_width=4 * WIDTH, norm_epsilon=1e-6)


@dataclass(frozen=True, slots=True)
class Design:
    """What a demo's models are built as. Text is as wide as the tower."""

    tower: ViTConfig
    vocabulary: Vocabulary

    @property
    def text(self) -> BertConfig:
        return BertConfig(
            vocabulary=len(self.vocabulary.words) + 2,
            num_positions=NUM_POSITIONS,
            width=self.tower.width,
            source_width=self.tower.width,
            num_layers=2,
            num_heads=self.tower.num_heads,
            mlp_width=4 * self.tower.width,
            norm_epsilon=1e-12,
        )


DEMO = Design(TOWER, SHAPES)


def initialise(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        elif isinstance(part, ViT):
            part.positions.data[0, 1:] = 0.5 * grid_waves(
                part.config.image_size // part.config.patch_size, part.config.width
            )
            nn.init.normal_(part.class_token, std=0.02)


def grid_waves(side: int, width: int) -> Tensor:
    """Sines and cosines of the row and of the column of each patch: (side * side, width). The position embeddings start
    from these: from noise, it takes thousands of steps longer to learn where a shape is than what it is."""
    frequencies = 0.1 ** torch.linspace(0, 1, width // 4)
    angles = torch.arange(side)[:, None] * frequencies * math.pi / 2
    waves = torch.cat([angles.sin(), angles.cos()], 1)  # (side, width / 2)
    rows, columns = waves.repeat_interleave(side, 0), waves.repeat(side, 1)
    return torch.cat([rows, columns], 1)


def share_all_but_self_attention(encoder: MED, decoder: MED) -> None:
    """The paper's parameter sharing between text encoder and text decoder."""
    decoder.tokens, decoder.positions, decoder.norm = encoder.tokens, encoder.positions, encoder.norm
    for ours, theirs in zip(decoder.layers, encoder.layers, strict=True):
        for name in ("cross_attention", "up", "down", "norm"):
            setattr(ours, name, getattr(theirs, name))


class PreTraining(nn.Module):
    """Phases 1 and 2: tower, text encoder (ITC and ITM) and text decoder (LM)."""

    def __init__(self, design: Design = DEMO) -> None:
        super().__init__()
        self.design = design
        config, width = design.text, design.tower.width
        self.tower = ViT(design.tower)
        self.vision_norm = LayerNorm(width, eps=design.tower.norm_epsilon)
        self.encoder = MED(config)
        self.decoder = MED(config)
        self.lm_head = LMHead(config)
        self.vision_proj = Head(width, PROJECTION)
        self.text_proj = Head(width, PROJECTION)
        self.itm_head = Head(width, 2)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.07)))  # of ITC
        initialise(self)
        share_all_but_self_attention(self.encoder, self.decoder)

    def see(self, pixels: Tensor) -> Tensor:
        """(n, 3, side, side) -> (n, tokens, width), after the final norm."""
        return self.vision_norm(self.tower(pixels))

    def caption_loss(self, seen: Tensor, captions: Texts) -> Tensor:
        known = self.design.vocabulary
        prompt = len(known.encode(vocabulary.PROMPT, known.dec_id)) - 1  # without [SEP]; no loss, as theirs
        return lm_loss(self.decoder, self.lm_head, self.decoder.look_at(seen), captions, prompt).mean()

    def similarity(self, seen: Tensor, words: Tensor) -> Tensor:
        """ITC's cosines (n, texts)."""
        return F.normalize(self.vision_proj(seen[:, 0]), dim=-1) @ words.T

    def embed_texts(self, lines: Texts) -> Tensor:
        """ITC's unit vectors (lines, 64)."""
        states, _ = self.encoder(lines.ids, padding_mask(lines.mask))
        return F.normalize(self.text_proj(states[:, 0]), dim=-1)

    def look_at(self, seen: Tensor) -> Source:
        return self.encoder.look_at(seen)

    def match(self, source: Source, lines: Texts) -> Tensor:
        """ITM's two logits for each line against its source."""
        asked = lines.starting_with(self.design.vocabulary.enc_id)
        states, _ = self.encoder(asked.ids, padding_mask(asked.mask), source)
        return self.itm_head(states[:, 0])


class Answering(nn.Module):
    """Phase 3: question encoder and answer decoder; they start from the pre-trained ones. Without the tower."""

    def __init__(self, trained: PreTraining) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(trained.encoder)
        self.decoder = copy.deepcopy(trained.decoder)
        self.lm_head = copy.deepcopy(trained.lm_head)

    def read(self, seen: Tensor, questions: Texts) -> Source:
        """Encode questions, lines of one picture together, for the answer decoder."""
        states, _ = self.encoder(questions.ids, padding_mask(questions.mask), self.encoder.look_at(seen))
        return self.decoder.look_at(states, questions.mask)

    def loss(self, seen: Tensor, questions: Texts, answers: Texts) -> Tensor:
        """Mean over all answer tokens; lines in parts by length, so that little of them is padding."""
        images = self.encoder.look_at(seen)
        losses = []
        for part in questions.by_length(len(seen), 4):
            asked = questions.take(part)
            states, _ = self.encoder(asked.ids, padding_mask(asked.mask), images)
            source = self.decoder.look_at(states, asked.mask)
            losses.append(lm_loss(self.decoder, self.lm_head, source, answers.take(part), 1))
        return torch.cat(losses).mean()


def lm_loss(decoder: MED, head: LMHead, source: Source, lines: Texts, num_given: int) -> Tensor:
    """Label-smoothed cross-entropy of every token after the first `num_given`: (tokens,)."""
    states, _ = decoder(lines.ids, causal_mask(lines.mask), source)
    asked = lines.mask[:, num_given:]
    logits = head(states[:, num_given - 1 : -1][asked], decoder.tokens)
    return F.cross_entropy(logits, lines.ids[:, num_given:][asked], label_smoothing=LABEL_SMOOTHING, reduction="none")


def greedy(decoder: MED, head: LMHead, source: Source, given: Tensor, max_new_tokens: int) -> list[list[int]]:
    """Continue the ids `given` (lines, tokens) until [SEP], which is left out."""
    ids = given
    for _ in range(max_new_tokens):
        states, _ = decoder(ids, causal_mask(torch.ones_like(ids, dtype=torch.bool)), source)
        ids = torch.cat([ids, head(states[:, -1:], decoder.tokens).argmax(-1)], 1)
        if (ids == vocabulary.SEP).any(1).all():
            break
    lines = ids[:, given.shape[1] :].tolist()
    return [line[: line.index(vocabulary.SEP)] if vocabulary.SEP in line else line for line in lines]
