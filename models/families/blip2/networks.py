"""BLIP-2's tower, a ViT, and its networks: a Q-Former with a language model after it, or with heads for image-text
matching.

A network is all of a checkpoint but the tower; its `norm` is LAVIS' `ln_vision`, which differs between checkpoints
with the same ViT.

Source: Li et al. 2023; LAVIS models/blip2_models/blip2_opt.py, blip2_t5.py, blip2_image_text_matching.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Blip2Config

from models.base import Task
from models.families.blip2.opt import OPT, OPT_KEYS, OPT_TIED, OPTConfig
from models.families.blip2.qformer import QFORMER_KEYS, QFormer, QFormerConfig
from models.families.blip2.t5 import T5, T5_KEYS, T5_TIED, T5Config
from models.inputs import Preprocessing
from models.layers.linear import Head, LayerNorm, Vocabulary
from models.layers.precision import serving_dtype
from models.layers.vit import VIT_KEYS, ViT, ViTConfig, vit_config
from models.runners.tower import square_resize
from models.weights import CheckpointError, Names, Tied, rename

NORM_EPSILON = 1e-5  # ln_vision's in LAVIS; transformers uses the blocks', 1e-6


class GenerationNet(nn.Module):
    def __init__(self, vision: ViTConfig, qformer: QFormerConfig, language_model: OPT | T5) -> None:
        super().__init__()
        self.norm = LayerNorm(vision.width, eps=NORM_EPSILON)
        self.qformer = QFormer(qformer)
        self.projection = Head(qformer.width, language_model.config.width)
        self.language_model = language_model

    def vocabulary(self) -> tuple[Vocabulary, Tensor, Tensor | None]:
        return self.language_model.vocabulary()


class RetrievalNet(nn.Module):
    def __init__(self, vision: ViTConfig, qformer: QFormerConfig, dimensions: int) -> None:
        super().__init__()
        self.norm = LayerNorm(vision.width, eps=NORM_EPSILON)
        self.qformer = QFormer(qformer)
        self.itm = Head(qformer.width, 2)  # no match, match
        self.image_projection = Head(qformer.width, dimensions)
        self.text_projection = Head(qformer.width, dimensions)


CONFIG = Blip2Config
TIED: Tied = {**OPT_TIED, **T5_TIED}
# The architecture in config.json that each task needs.
ARCHITECTURES = {
    Task.CAPTION: "Blip2ForConditionalGeneration",
    Task.VQA: "Blip2ForConditionalGeneration",
    Task.MATCH: "Blip2ForImageTextRetrieval",
}

# The first part of our parameter name -> the Hugging Face prefix. Q-Former and language model have key maps instead.
_PARTS = {
    "norm": "vision_model.post_layernorm.",
    "projection": "language_projection.",
    "itm": "itm_head.",
    "image_projection": "vision_projection.",
    "text_projection": "text_projection.",
}


def hugging_face_names(module: nn.Module) -> Names:
    """Of a tower or network."""
    if isinstance(module, ViT):
        return {name: rename(name, VIT_KEYS) for name, _ in module.named_parameters()}
    names: dict[str, tuple[str, ...]] = {}
    for name, _ in module.named_parameters():
        first, _, rest = name.partition(".")
        if first == "qformer":
            names[name] = rename(rest, QFORMER_KEYS)
        elif first == "language_model":
            names[name] = rename(rest, OPT_KEYS if isinstance(module.language_model, OPT) else T5_KEYS)
        else:
            names[name] = rename(rest, prefix=_PARTS[first])
    return names


# What is implemented, where a configuration could ask for something else: by its part, and by kind of language model.
_IMPLEMENTED: dict[str, dict[str, object]] = {
    "vision_config": {"hidden_act": "gelu", "qkv_bias": True},
    "qformer_config": {"hidden_act": "gelu"},
}
_LANGUAGE_MODELS: dict[str, dict[str, object]] = {
    "opt": {
        "activation_function": "relu",
        "do_layer_norm_before": True,
        "enable_bias": True,
        "layer_norm_elementwise_affine": True,
        "_remove_final_layer_norm": False,
    },
    "t5": {"dense_act_fn": "gelu", "is_gated_act": True, "scale_decoder_outputs": False},
}


def check(task: Task, config: Blip2Config) -> None:
    """Raises CheckpointError if the configuration asks for something that is not implemented."""
    kind = config.text_config.model_type
    implemented = dict(_IMPLEMENTED)
    if task is Task.MATCH:
        implemented["qformer_config"] = implemented["qformer_config"] | {"use_qformer_text_input": True}
    elif kind not in _LANGUAGE_MODELS:
        raise CheckpointError(f"its language model is {kind}, not one of: {', '.join(_LANGUAGE_MODELS)}")
    else:
        implemented["text_config"] = _LANGUAGE_MODELS[kind]
    for part, values in implemented.items():
        for name, value in values.items():
            if (found := getattr(getattr(config, part), name)) != value:
                raise CheckpointError(f"its {part} has {name} {found!r}, BLIP-2's is {value!r}")


def preprocessing(processor: Mapping[str, Any], config: Blip2Config) -> Preprocessing:
    """Raises CheckpointError if the preprocessor makes another size than the tower takes."""
    return square_resize(processor, config.vision_config.image_size)


def vision_config(config: Blip2Config) -> ViTConfig:
    return vit_config(config.vision_config, config.vision_config.layer_norm_eps)


def qformer_config(config: Blip2Config) -> QFormerConfig:
    qformer = config.qformer_config
    return QFormerConfig(
        vocabulary=qformer.vocab_size,
        num_positions=qformer.max_position_embeddings,
        width=qformer.hidden_size,
        source_width=config.vision_config.hidden_size,
        num_layers=qformer.num_hidden_layers,
        num_heads=qformer.num_attention_heads,
        mlp_width=qformer.intermediate_size,
        norm_epsilon=qformer.layer_norm_eps,
        num_queries=config.num_query_tokens,
        cross_attention_every=qformer.cross_attention_frequency,
        reads_text=qformer.use_qformer_text_input,
    )


def language_model(config: Blip2Config) -> OPT | T5:
    text = config.text_config
    if text.model_type == "opt":
        return OPT(
            OPTConfig(
                vocabulary=text.vocab_size,
                num_positions=text.max_position_embeddings,
                width=text.hidden_size,
                num_layers=text.num_hidden_layers,
                num_heads=text.num_attention_heads,
                mlp_width=text.ffn_dim,
            )
        )
    return T5(
        T5Config(
            vocabulary=text.vocab_size,
            width=text.d_model,
            head_width=text.d_kv,
            num_heads=text.num_heads,
            mlp_width=text.d_ff,
            num_encoder_layers=text.num_layers,
            num_decoder_layers=text.num_decoder_layers,
            num_buckets=text.relative_attention_num_buckets,
            max_distance=text.relative_attention_max_distance,
            norm_epsilon=text.layer_norm_epsilon,
        )
    )


def build_tower(config: Blip2Config) -> ViT:
    return ViT(vision_config(config))


def build(task: Task, config: Blip2Config) -> nn.Module:
    """The network of a checkpoint for `task`, without weights."""
    vision, qformer = vision_config(config), qformer_config(config)
    if task is Task.MATCH:
        return RetrievalNet(vision, qformer, config.image_text_hidden_size)
    return GenerationNet(vision, qformer, language_model(config))


def set_dtypes(module: nn.Module, dtype: torch.dtype) -> None:
    """The tower and the language model get the serving dtype; Q-Former, norm, projections and heads are float32."""
    if isinstance(module, ViT):
        serving_dtype(module, dtype)
        return
    module.float()
    model = language_model_of(module)
    if model is not None:
        # Flan-T5's hidden states overflow float16.
        overflows = isinstance(model, T5) and dtype is torch.float16
        serving_dtype(model, torch.bfloat16 if overflows else dtype)


def quantizable(network: nn.Module) -> OPT | T5 | None:
    """The language model. Not the Q-Former: below float32 its ITM logits are off."""
    return language_model_of(network)


def language_model_of(network: nn.Module) -> OPT | T5 | None:
    return network.language_model if isinstance(network, GenerationNet) else None
