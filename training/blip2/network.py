"""BLIP-2 in training: a Q-Former over the BLIP demo's frozen tower, and its projection into a frozen language model
(Li et al. 2023, section 3)."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BlipConfig

from models.base import Task
from models.families.blip import med
from models.families.blip import networks as blip
from models.families.blip.med import LMHead
from models.families.blip2.networks import NORM_EPSILON
from models.families.blip2.opt import OPT
from models.families.blip2.qformer import Layer, QFormer, QFormerConfig, beside_queries
from models.layers.attention import Source, padding_mask
from models.layers.linear import Head, LayerNorm
from models.layers.vit import ViT
from models.weights import Weights
from training import vocabulary
from training.blip2.language import NUM_QUERIES
from training.data import Texts
from training.export import CHECKPOINTS
from training.network import LABEL_SMOOTHING, PROJECTION, TOWER, WIDTH

NUM_POSITIONS = 64


def qformer_config(*, reads_text: bool) -> QFormerConfig:
    return QFormerConfig(
        vocabulary=len(vocabulary.SHAPES.words) + 1,  # [DEC]
        num_positions=NUM_POSITIONS,
        width=WIDTH,
        source_width=WIDTH,
        num_layers=3,
        num_heads=4,
        mlp_width=4 * WIDTH,
        norm_epsilon=1e-12,
        num_queries=NUM_QUERIES,
        cross_attention_every=1,
        reads_text=reads_text,
    )


def demo_blip() -> tuple[ViT, blip.MatchNet]:
    """Tower and text encoder of the BLIP demo, as they are shipped."""
    folder = CHECKPOINTS / "match"
    config = BlipConfig.from_pretrained(folder)
    tower, network = blip.build_tower(config), blip.build(Task.MATCH, config)
    for module in (tower, network):
        Weights(folder, blip.TIED).load(module, blip.hugging_face_names(module), torch.device("cpu"))
    return tower, cast("blip.MatchNet", network)


class Querying(nn.Module):
    """Stage 1: ITC, ITM and image-grounded text generation (ITG), which share the Q-Former and differ in their
    attention masks."""

    def __init__(self) -> None:
        super().__init__()
        config = qformer_config(reads_text=True)
        self.tower = ViT(TOWER)
        self.norm = LayerNorm(WIDTH, eps=NORM_EPSILON)
        self.qformer = QFormer(config)
        self.lm_head = LMHead(config)
        self.itm = Head(WIDTH, 2)
        self.image_projection = Head(WIDTH, PROJECTION)
        self.text_projection = Head(WIDTH, PROJECTION)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.07)))
        self.start_from(*demo_blip())

    def start_from(self, tower: ViT, trained: blip.MatchNet) -> None:
        """The tower as it is, frozen. The paper's Q-Former starts from BERT; ours from the BLIP demo's text encoder,
        with its last layer used twice, and its feed-forward layers for the queries too."""
        self.tower.load_state_dict(tower.state_dict())
        self.tower.requires_grad_(False)
        self.norm.load_state_dict(trained.norm.state_dict())
        encoder, qformer = trained.encoder, self.qformer
        qformer.tokens.weight.data.copy_(encoder.tokens.weight[: qformer.config.vocabulary])
        qformer.positions.weight.data.copy_(encoder.positions.weight[: qformer.config.num_positions])
        qformer.norm.load_state_dict(encoder.norm.state_dict())
        for index, layer in enumerate(qformer.layers):
            start(cast("Layer", layer), cast("med.Layer", encoder.layers[min(index, len(encoder.layers) - 1)]))
        nn.init.normal_(qformer.queries, std=qformer.tokens.weight.std().item())
        for name in ("itm", "image_projection", "text_projection"):
            getattr(self, name).load_state_dict(getattr(trained, name).state_dict())

    def see(self, pixels: Tensor) -> Tensor:
        return self.norm(self.tower(pixels))

    def look_at(self, seen: Tensor) -> Source:
        return self.qformer.look_at(seen)

    def similarity(self, seen: Tensor, words: Tensor) -> Tensor:
        """Of each picture's queries, the most similar one counts."""
        states = self.qformer(self.qformer.look_at(seen))
        vectors = F.normalize(self.image_projection(states), dim=-1)  # (n, queries, 64)
        return (vectors @ words.T).amax(1)

    def embed_texts(self, lines: Texts) -> Tensor:
        states = self.qformer(None, lines.ids, padding_mask(lines.mask))
        return F.normalize(self.text_projection(states[:, 0]), dim=-1)

    def match(self, source: Source, lines: Texts) -> Tensor:
        """Queries and text see each other; the mean of the queries' logits."""
        states = self.qformer(source, lines.ids, beside_queries(lines.mask, NUM_QUERIES))
        return self.itm(states[:, :NUM_QUERIES]).mean(1)

    def caption_loss(self, seen: Tensor, captions: Texts) -> Tensor:
        """ITG: the queries see each other, the text sees them and what is before it."""
        width = NUM_QUERIES + captions.ids.shape[1]
        mask = torch.ones(width, width, dtype=torch.bool).tril()
        mask[:NUM_QUERIES, :NUM_QUERIES] = True
        states = self.qformer(self.qformer.look_at(seen), captions.ids, mask[None, None])[:, NUM_QUERIES:]
        asked = captions.mask[:, 1:]
        logits = self.lm_head(states[:, :-1][asked], self.qformer.tokens)
        return F.cross_entropy(logits, captions.ids[:, 1:][asked], label_smoothing=LABEL_SMOOTHING)


def start(layer: Layer, trained: med.Layer) -> None:
    """Give `layer` the weights of a text encoder's."""
    layer.self_attention.load_state_dict(trained.self_attention.state_dict())
    assert layer.cross_attention is not None
    assert layer.text_feed_forward is not None
    layer.cross_attention.load_state_dict(trained.cross_attention.state_dict())
    for feed_forward in (layer.query_feed_forward, layer.text_feed_forward):
        for name in ("up", "down", "norm"):
            getattr(feed_forward, name).load_state_dict(getattr(trained, name).state_dict())


class Speaking(nn.Module):
    """Stage 2: the Q-Former, without its text part, learns to tell a frozen language model what it sees."""

    def __init__(self, trained: Querying, language_model: OPT) -> None:
        super().__init__()
        self.tower = trained.tower
        self.norm = LayerNorm(WIDTH, eps=NORM_EPSILON)
        self.norm.load_state_dict(trained.norm.state_dict())
        self.qformer = QFormer(qformer_config(reads_text=False))
        state = trained.qformer.state_dict()
        self.qformer.load_state_dict({name: state[name] for name in self.qformer.state_dict()})
        self.projection = Head(WIDTH, language_model.config.width)
        nn.init.normal_(self.projection.weight, std=0.02)
        nn.init.zeros_(self.projection.bias)
        self.language_model = language_model.requires_grad_(False)

    def tell(self, features: Tensor) -> Tensor:
        """Features of pictures -> what the language model reads before the text: (n, queries, width)."""
        return self.projection(self.qformer(self.qformer.look_at(self.norm(features))))
