"""BLIP's tower, a ViT, and its networks for captioning, VQA and image-text matching.

A network is all of a checkpoint but the tower; its `norm` is the ViT's final one.

Source: Li et al. 2022; salesforce/BLIP models/blip.py, blip_vqa.py, blip_itm.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BlipConfig

from models.base import Task
from models.families.blip.med import LM_HEAD_KEYS, MED, MED_KEYS, MED_TIED, LMHead
from models.inputs import Preprocessing
from models.layers.attention import BertConfig
from models.layers.linear import Head, LayerNorm, Vocabulary
from models.layers.precision import serving_dtype
from models.layers.vit import VIT_KEYS, ViT, ViTConfig, vit_config
from models.runners.tower import square_resize
from models.weights import CheckpointError, KeyMap, Names, rename


class CaptionNet(nn.Module):
    def __init__(self, vision: ViTConfig, text: BertConfig) -> None:
        super().__init__()
        self.num_image_tokens = vision.num_tokens
        self.norm = LayerNorm(vision.width, eps=vision.norm_epsilon)
        self.decoder = MED(text)
        self.head = LMHead(text)

    def vocabulary(self) -> tuple[Vocabulary, Tensor, Tensor | None]:
        return self.head, self.decoder.tokens.weight, self.head.bias


class VQANet(nn.Module):
    def __init__(self, vision: ViTConfig, text: BertConfig) -> None:
        super().__init__()
        self.norm = LayerNorm(vision.width, eps=vision.norm_epsilon)
        self.encoder = MED(text)  # of the question; looks at the image
        self.decoder = MED(replace(text, source_width=text.width))  # of the answer; looks at the encoded question
        self.head = LMHead(text)

    def vocabulary(self) -> tuple[Vocabulary, Tensor, Tensor | None]:
        return self.head, self.decoder.tokens.weight, self.head.bias


class MatchNet(nn.Module):
    def __init__(self, vision: ViTConfig, text: BertConfig, dimensions: int) -> None:
        super().__init__()
        self.norm = LayerNorm(vision.width, eps=vision.norm_epsilon)
        self.encoder = MED(text)
        self.itm = Head(text.width, 2)  # no match, match
        self.image_projection = Head(vision.width, dimensions)
        self.text_projection = Head(text.width, dimensions)


CONFIG = BlipConfig
TIED = MED_TIED
# The architecture in config.json that each task needs.
ARCHITECTURES = {
    Task.CAPTION: "BlipForConditionalGeneration",
    Task.VQA: "BlipForQuestionAnswering",
    Task.MATCH: "BlipForImageTextRetrieval",
}

# The first part of our parameter name -> the Hugging Face prefix, and the key map for the rest of the name.
_PARTS: dict[str, tuple[str, KeyMap]] = {
    "norm": ("vision_model.post_layernorm.", ()),
    "decoder": ("text_decoder.bert.", MED_KEYS),
    "head": ("text_decoder.cls.predictions.", LM_HEAD_KEYS),
    "encoder": ("text_encoder.", MED_KEYS),
    "itm": ("itm_head.", ()),
    "image_projection": ("vision_proj.", ()),
    "text_projection": ("text_proj.", ()),
}


def hugging_face_names(module: nn.Module) -> Names:
    """Of a tower or network."""
    if isinstance(module, ViT):
        return {name: rename(name, VIT_KEYS) for name, _ in module.named_parameters()}
    names: dict[str, tuple[str, ...]] = {}
    for name, _ in module.named_parameters():
        first, _, rest = name.partition(".")
        prefix, keys = _PARTS[first]
        names[name] = rename(rest, keys, prefix)
    return names


def check(_: Task, config: BlipConfig) -> None:
    """Raises CheckpointError if the configuration asks for something that is not implemented."""
    if {config.vision_config.hidden_act, config.text_config.hidden_act} != {"gelu"}:
        raise CheckpointError("its activation is not BLIP's, gelu")


VISION_EPSILON = 1e-6  # the authors', in models/vit.py; config.json holds transformers' default, 1e-5


def preprocessing(processor: Mapping[str, Any], config: BlipConfig) -> Preprocessing:
    """Raises CheckpointError if the preprocessor makes another size than the tower takes."""
    return square_resize(processor, config.vision_config.image_size)


def vision_config(config: BlipConfig) -> ViTConfig:
    return vit_config(config.vision_config, VISION_EPSILON)


def text_config(config: BlipConfig) -> BertConfig:
    text = config.text_config
    return BertConfig(
        vocabulary=text.vocab_size,
        num_positions=text.max_position_embeddings,
        width=text.hidden_size,
        source_width=config.vision_config.hidden_size,
        num_layers=text.num_hidden_layers,
        num_heads=text.num_attention_heads,
        mlp_width=text.intermediate_size,
        norm_epsilon=text.layer_norm_eps,
    )


def build_tower(config: BlipConfig) -> ViT:
    return ViT(vision_config(config))


def build(task: Task, config: BlipConfig) -> nn.Module:
    """The network of a checkpoint for `task`, without weights."""
    vision, text = vision_config(config), text_config(config)
    match task:
        case Task.CAPTION:
            return CaptionNet(vision, text)
        case Task.VQA:
            return VQANet(vision, text)
        case _:
            return MatchNet(vision, text, config.image_text_hidden_size)


def set_dtypes(module: nn.Module, dtype: torch.dtype) -> None:
    serving_dtype(module, dtype)


def quantizable(network: nn.Module) -> nn.Module:
    return network


def language_model_of(_: nn.Module) -> None:
    """None: the text decoder is part of BLIP, not a pretrained language model."""
