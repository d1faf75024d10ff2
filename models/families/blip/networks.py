"""BLIP's networks: captions, answers, and image-text matching over one Vision Transformer.

Source: Li et al. 2022; salesforce/BLIP models/blip.py, blip_vqa.py, blip_itm.py. Each network is a checkpoint without
its tower; its norm is the tower's final one.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from transformers import BlipConfig

from models.base import Task
from models.families.blip.med import LM_HEAD_KEYS, MED, MED_KEYS, LMHead
from models.layers.bert import BertConfig
from models.layers.precision import Head, LayerNorm, serving_dtype
from models.layers.vit import VIT_KEYS, ViTConfig, vit_config
from models.weights import CheckpointError, KeyMap, rename


class CaptionNet(nn.Module):
    def __init__(self, vision: ViTConfig, text: BertConfig) -> None:
        super().__init__()
        self.num_image_tokens = vision.num_tokens
        self.norm = LayerNorm(vision.width, eps=vision.norm_epsilon)
        self.decoder = MED(text)
        self.head = LMHead(text)


class VQANet(nn.Module):
    def __init__(self, vision: ViTConfig, text: BertConfig) -> None:
        super().__init__()
        self.norm = LayerNorm(vision.width, eps=vision.norm_epsilon)
        self.encoder = MED(text)  # of the question, grounded in the image
        self.decoder = MED(replace(text, source_width=text.width))  # of the answer; looks at the encoded question
        self.head = LMHead(text)


class MatchNet(nn.Module):
    def __init__(self, vision: ViTConfig, text: BertConfig, dimensions: int) -> None:
        super().__init__()
        self.norm = LayerNorm(vision.width, eps=vision.norm_epsilon)
        self.encoder = MED(text)
        self.itm = Head(text.width, 2)  # no match, match
        self.image_projection = Head(vision.width, dimensions)
        self.text_projection = Head(text.width, dimensions)


CONFIG = BlipConfig
# What a checkpoint for a task must be, in Hugging Face's words.
ARCHITECTURES = {
    Task.CAPTION: "BlipForConditionalGeneration",
    Task.VQA: "BlipForQuestionAnswering",
    Task.MATCH: "BlipForImageTextRetrieval",
}

# The first part of our parameter names -> its prefix in Hugging Face's, and the map of the rest.
_PARTS: dict[str, tuple[str, KeyMap]] = {
    "norm": ("vision_model.post_layernorm.", ()),
    "decoder": ("text_decoder.bert.", MED_KEYS),
    "head": ("text_decoder.cls.predictions.", LM_HEAD_KEYS),
    "encoder": ("text_encoder.", MED_KEYS),
    "itm": ("itm_head.", ()),
    "image_projection": ("vision_proj.", ()),
    "text_projection": ("text_proj.", ()),
}


def hugging_face_names(module: nn.Module) -> dict[str, str]:
    """Our parameter name -> Hugging Face name, for a network or a tower of BLIP."""
    if not isinstance(module, CaptionNet | VQANet | MatchNet):
        return {name: rename(name, VIT_KEYS) for name, _ in module.named_parameters()}
    names = {}
    for name, _ in module.named_parameters():
        first, _, rest = name.partition(".")
        prefix, keys = _PARTS[first]
        names[name] = prefix + rename(rest, keys)
    return names


def check(_: Task, config: BlipConfig) -> None:
    """Raises CheckpointError if the networks would not compute what the configuration says."""
    if {config.vision_config.hidden_act, config.text_config.hidden_act} != {"gelu"}:
        raise CheckpointError("its activation is not BLIP's, gelu")


# As vit.py has it, whatever a configuration says: the published ones hold the class default of transformers, 1e-5.
VISION_EPSILON = 1e-6


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


def set_dtypes(network: nn.Module, dtype: torch.dtype) -> None:
    serving_dtype(network, dtype)


def quantizable(network: nn.Module) -> nn.Module:
    return network


def language_model_of(_: nn.Module) -> None:
    """None: its decoder is trained with the rest, for this one task."""
