"""A small CLIP on scenes of things; CLIPSeg, which reads its tower as it is (Lüddecke and Ecker 2022); and OWL-ViT,
which starts from it and learns on (Minderer et al. 2022): the library's own networks, as the service runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    OwlViTConfig,
    OwlViTForObjectDetection,
)

from models.layers.vit import Block, ViT, ViTConfig
from training.data import Texts, normalise
from training.joint import contrastive_loss
from training.loop import Plan
from training.network import PROJECTION, initialise
from training.things.captions import random_caption
from training.things.data import UNTOLD, RegionBatch, SceneBatches, patches_of, pixels_of, said_of, shown_in
from training.things.scenes import Drawn
from training.things.words import Words

NUM_LAYERS = 4  # of the tower
NUM_POSITIONS = 48  # tokens of a text
READ_LAYERS = (1, 2, 3)  # by CLIPSeg's decoder
SCALE = 10.0  # of OWL-ViT's cosines, before anything is learned
PRIOR = -5.0  # logit of a thing on a patch, before anything is learned: nearly all are none (Lin et al. 2017)


@dataclass(frozen=True, slots=True)
class Plans:
    contrast: Plan = Plan(1400, peak=7e-4, floor=0.0, num_pictures=32)
    segment: Plan = Plan(2200, peak=1e-3, floor=0.0, num_pictures=32)
    detect: Plan = Plan(1000, peak=5e-4, floor=0.0, num_pictures=32)

    def scaled(self, scale: float) -> Plans:
        return Plans(self.contrast.scaled(scale), self.segment.scaled(scale), self.detect.scaled(scale))


@dataclass(frozen=True, slots=True)
class ContrastBatch:
    """`lines`: a true caption a picture, then the short ones. `true` (n, lines): which are true of which picture.
    `patches` (n, patches): as TowerBatch."""

    pixels: Tensor
    lines: Texts
    true: Tensor
    patches: Tensor


class ContrastBatches(SceneBatches[ContrastBatch]):
    def batch(self, rng: Random, drawn: Sequence[Drawn]) -> ContrastBatch:
        words, scenes = self.drawing.words, [one.scene for one in drawn]
        said = [random_caption(rng, scene) for scene in scenes]
        lines = words.pooled_texts([*map(str, said), *words.short])
        true = torch.cat([said_of(scenes, said), shown_in(scenes, words)], 1)
        return ContrastBatch(pixels_of(drawn), lines, true, patches_of(drawn, self.drawing))


def sizes(tower: ViTConfig, words: Words) -> dict[str, Any]:
    """What the configurations of all three have in common."""
    known = words.pooled
    vision = {
        "hidden_size": tower.width,
        "intermediate_size": tower.mlp_width,
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": tower.num_heads,
        "image_size": tower.image_size,
        "patch_size": tower.patch_size,
        "hidden_act": "gelu",
        "layer_norm_eps": tower.norm_epsilon,
    }
    text = {
        "hidden_size": PROJECTION,
        "intermediate_size": 4 * PROJECTION,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": len(known.words),
        "max_position_embeddings": NUM_POSITIONS,
        "bos_token_id": known.ids["[CLS]"],
        "eos_token_id": known.sep_id,
        "pad_token_id": known.ids["[PAD]"],
    }
    return {"vision_config": vision, "text_config": text, "projection_dim": PROJECTION}


def arguments(lines: Texts) -> dict[str, Tensor]:
    """Of the library's text encoders."""
    return {"input_ids": lines.ids, "attention_mask": lines.mask.long()}


class Contrast(nn.Module):
    """CLIP. Its tower starts from the first blocks of a BLIP's. Its patches are taught the names of what is on them,
    as CLIPSeg and OWL-ViT read what its tower makes of patches."""

    def __init__(self, stated: dict[str, Any], trained: ViT) -> None:
        super().__init__()
        self.clip = CLIPModel(CLIPConfig(**stated))
        start_from(self.clip.vision_model, trained)

    def loss(self, batch: ContrastBatch) -> Tensor:
        similarity = self.similarity(batch.pixels, batch.lines) * self.clip.logit_scale.exp().clamp(max=100)
        shown, short = batch.patches > 0, similarity[:, 1:, len(batch.pixels) :]
        per_patch = F.cross_entropy(short[shown], batch.patches[shown] - 1, reduction="sum")
        return contrastive_loss(similarity[:, 0], batch.true) + per_patch / shown.sum().clamp(min=1)

    def similarity(self, pixels: Tensor, lines: Texts) -> Tensor:
        """Cosines of each picture, then of each of its patches, with each line: (pictures, 1 + patches, lines)."""
        vision = self.clip.vision_model
        states = vision.post_layernorm(vision(pixel_values=normalise(pixels)).last_hidden_state)
        words = self.clip.get_text_features(**arguments(lines)).pooler_output
        return F.normalize(self.clip.visual_projection(states), dim=-1) @ F.normalize(words, dim=-1).T


@torch.no_grad()
def start_from(vision: Any, trained: ViT) -> None:
    """CLIP's patches have no bias: the positions take it. Its norm before the first block is new."""
    embeddings = vision.embeddings
    embeddings.patch_embedding.weight.copy_(trained.patches.weight)
    embeddings.class_embedding.copy_(trained.class_token[0, 0])
    embeddings.position_embedding.weight.copy_(trained.positions[0])
    assert trained.patches.bias is not None
    embeddings.position_embedding.weight[1:] += trained.patches.bias
    for layer, block in zip(vision.encoder.layers, trained.blocks, strict=False):
        assert isinstance(block, Block)
        attention = layer.self_attn
        parts = zip(block.qkv.weight.chunk(3), block.qkv.bias.chunk(3), strict=True)
        for ours, (weight, bias) in zip((attention.q_proj, attention.k_proj, attention.v_proj), parts, strict=True):
            ours.weight.copy_(weight)
            ours.bias.copy_(bias)
        same = ((attention.out_proj, block.out), (layer.mlp.fc1, block.up), (layer.mlp.fc2, block.down))
        norms = ((layer.layer_norm1, block.attention_norm), (layer.layer_norm2, block.mlp_norm))
        for ours, theirs in (*same, *norms):
            ours.load_state_dict(theirs.state_dict())


class Segment(nn.Module):
    """CLIPSeg, of which the decoder learns."""

    def __init__(self, stated: dict[str, Any], trained: CLIPModel) -> None:
        super().__init__()
        config = CLIPSegConfig(
            **stated,
            extract_layers=list(READ_LAYERS),
            reduce_dim=PROJECTION,
            decoder_num_attention_heads=4,
            decoder_intermediate_size=2 * PROJECTION,
        )
        self.clipseg = CLIPSegForImageSegmentation(config)
        self.clipseg.clip.load_state_dict(trained.state_dict())
        self.clipseg.clip.requires_grad_(False)
        initialise(self.clipseg.decoder)

    def loss(self, batch: RegionBatch) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.maps(batch.pixels, batch.texts), batch.masks)

    def maps(self, pixels: Tensor, lines: Texts) -> Tensor:
        """Logits (n, side, side) of a text for each picture."""
        return self.clipseg(pixel_values=normalise(pixels), **arguments(lines)).logits


class Detect(nn.Module):
    """OWL-ViT, all of which learns. Every patch of a thing tells its box: the service leaves one of each."""

    def __init__(self, stated: dict[str, Any], trained: CLIPModel, words: Words) -> None:
        super().__init__()
        self.owl = OwlViTForObjectDetection(OwlViTConfig(**stated))
        weights = {name.replace("pre_layrnorm", "pre_layernorm"): value for name, value in trained.state_dict().items()}
        self.owl.owlvit.load_state_dict(weights)
        self.lines = words.pooled_texts(words.short)
        classes = self.owl.class_head
        for head in (classes, self.owl.box_head):
            initialise(head)  # the library's own is so wide that half of the patches learn nothing
        for part, start in ((classes.logit_scale, SCALE - 1), (classes.logit_shift, PRIOR / SCALE)):
            nn.init.zeros_(part.weight)
            nn.init.constant_(part.bias, start)

    def loss(self, batch: RegionBatch) -> Tensor:
        logits, boxes = self.found(batch.pixels, self.lines)
        told, shown = batch.patches != UNTOLD, batch.patches > 0
        target = F.one_hot(batch.patches.clamp(min=0), logits.shape[-1] + 1)[..., 1:].float()
        right = torch.where(target > 0, logits.sigmoid(), 1 - logits.sigmoid())
        per_patch = (1 - right) ** 2 * F.binary_cross_entropy_with_logits(logits, target, reduction="none")  # focal
        classes = per_patch[told].sum() / shown.sum().clamp(min=1)
        places = F.l1_loss(boxes[shown], batch.boxes[shown], reduction="sum") / 4
        return classes + 5 * places / shown.sum().clamp(min=1)

    def found(self, pixels: Tensor, lines: Texts) -> tuple[Tensor, Tensor]:
        """Logits (n, patches, lines) and boxes (n, patches, 4): centre and size, as shares of the side."""
        owl = self.owl
        states = owl.owlvit.vision_model(pixel_values=normalise(pixels)).last_hidden_state
        states = owl.owlvit.vision_model.post_layernorm(states)
        patches = owl.layer_norm(states[:, 1:] * states[:, :1])
        words = owl.owlvit.get_text_features(**arguments(lines)).pooler_output
        logits, _ = owl.class_predictor(patches, words.expand(len(patches), *words.shape))
        return logits, owl.box_predictor(patches, patches)
