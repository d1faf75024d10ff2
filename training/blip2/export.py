"""Write the trained BLIP-2 as two checkpoints in the format of the Salesforce ones.

Weights are float16; the tower's tensors are those of the BLIP demo, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.families.blip2.opt import OPT_KEYS
from models.families.blip2.qformer import QFORMER_KEYS, QFormerConfig
from models.layers.vit import VIT_KEYS
from training import vocabulary
from training.blip2.language import BOS, NUM_QUERIES, PAD, Speller
from training.blip2.network import Querying, Speaking, qformer_config
from training.export import halved, write_json, write_model
from training.network import PROJECTION, TOWER

CHECKPOINTS = Path("models/checkpoints/demo-blip2")
PROCESSOR = "Blip2Processor"


def seen_tensors(tower: nn.Module, norm: nn.Module, qformer: nn.Module) -> dict[str, Tensor]:
    return halved(tower, VIT_KEYS) | halved(norm, (), "vision_model.post_layernorm.") | halved(qformer, QFORMER_KEYS)


def generation_tensors(model: Speaking) -> dict[str, Tensor]:
    return (
        seen_tensors(model.tower, model.norm, model.qformer)
        | halved(model.projection, (), "language_projection.")
        | halved(model.language_model, OPT_KEYS)
    )


def retrieval_tensors(model: Querying) -> dict[str, Tensor]:
    tensors = seen_tensors(model.tower, model.norm, model.qformer)
    heads = (("itm_head.", model.itm), ("vision_projection.", model.image_projection))
    for prefix, head in (*heads, ("text_projection.", model.text_projection)):
        tensors |= halved(head, (), prefix)
    return tensors


def configuration(architecture: str, qformer: QFormerConfig, text: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "dtype": "float16",
        "image_text_hidden_size": PROJECTION,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "model_type": "blip-2",
        "num_query_tokens": NUM_QUERIES,
        "qformer_config": {
            "cross_attention_frequency": qformer.cross_attention_every,
            "encoder_hidden_size": qformer.source_width,
            "hidden_act": "gelu",
            "hidden_size": qformer.width,
            "intermediate_size": qformer.mlp_width,
            "layer_norm_eps": qformer.norm_epsilon,
            "max_position_embeddings": qformer.num_positions,
            "model_type": "blip_2_qformer",
            "num_attention_heads": qformer.num_heads,
            "num_hidden_layers": qformer.num_layers,
            "pad_token_id": vocabulary.PAD,
            "use_qformer_text_input": qformer.reads_text,
            "vocab_size": qformer.vocabulary,
        },
        "text_config": dict(text),
        "use_decoder_only_language_model": True,
        "vision_config": {
            "attention_dropout": 0.0,
            "hidden_act": "gelu",
            "hidden_size": TOWER.width,
            "image_size": TOWER.image_size,
            "intermediate_size": TOWER.mlp_width,
            "layer_norm_eps": TOWER.norm_epsilon,
            "model_type": "blip_2_vision_model",
            "num_attention_heads": TOWER.num_heads,
            "num_hidden_layers": TOWER.num_layers,
            "patch_size": TOWER.patch_size,
            "qkv_bias": True,
        },
        **more,
    }


def opt_configuration(model: Speaking, speller: Speller) -> dict[str, Any]:
    opt = model.language_model.config
    return {
        "activation_function": "relu",
        "architectures": ["OPTForCausalLM"],
        "bos_token_id": speller.id(BOS),
        "do_layer_norm_before": True,
        "dropout": 0.0,
        "eos_token_id": speller.newline,
        "ffn_dim": opt.mlp_width,
        "hidden_size": opt.width,
        "max_position_embeddings": opt.num_positions,
        "model_type": "opt",
        "num_attention_heads": opt.num_heads,
        "num_hidden_layers": opt.num_layers,
        "pad_token_id": speller.id(PAD),
        "vocab_size": opt.vocabulary,
        "word_embed_proj_dim": opt.width,
    }


def export(trained: Querying, speaking: Speaking, speller: Speller, folder: Path) -> None:
    generate, match = folder / "generate", folder / "match"
    write_model(
        generate,
        generation_tensors(speaking),
        configuration(
            "Blip2ForConditionalGeneration",
            qformer_config(reads_text=False),
            opt_configuration(speaking, speller),
            image_token_index=len(speller),  # <image>, the entry after the vocabulary
        ),
        PROCESSOR,
    )
    speller.save(generate)
    write_json(generate / "processor_config.json", {"num_query_tokens": NUM_QUERIES, "processor_class": PROCESSOR})
    write_json(
        generate / "generation_config.json",
        {"bos_token_id": speller.id(BOS), "eos_token_id": speller.newline, "pad_token_id": speller.id(PAD)},
    )
    write_model(
        match,
        retrieval_tensors(trained),
        configuration("Blip2ForImageTextRetrieval", qformer_config(reads_text=True), {"model_type": "opt"}),
        PROCESSOR,
    )
    vocabulary.save(vocabulary.SHAPES, match, PROCESSOR)
