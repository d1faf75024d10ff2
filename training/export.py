"""Write the trained models as three checkpoints in the format of the Salesforce ones: `python -m training.export`.

Weights are float16; the tower's tensors are the same, bit for bit, in all three."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.families.blip.med import LM_HEAD_KEYS, MED_KEYS
from models.layers.vit import VIT_KEYS
from models.weights import KeyMap, named, save
from training import vocabulary
from training.data import MEAN, STD
from training.network import LABEL_SMOOTHING, PROJECTION, Answering, Design, PreTraining

CHECKPOINTS = Path("models/checkpoints/demo")


def halved(module: nn.Module, keys: KeyMap = (), prefix: str = "") -> dict[str, Tensor]:
    return {name: tensor.half() for name, tensor in named(module, keys, prefix).items()}


def tower_tensors(model: PreTraining) -> dict[str, Tensor]:
    return halved(model.tower, VIT_KEYS) | halved(model.vision_norm, (), "vision_model.post_layernorm.")


def decoder_tensors(model: PreTraining | Answering) -> dict[str, Tensor]:
    return halved(model.decoder, MED_KEYS, "text_decoder.bert.") | halved(
        model.lm_head, LM_HEAD_KEYS, "text_decoder.cls.predictions."
    )


def encoder_tensors(model: PreTraining | Answering) -> dict[str, Tensor]:
    return halved(model.encoder, MED_KEYS, "text_encoder.")


def match_tensors(model: PreTraining) -> dict[str, Tensor]:
    heads = (("vision_proj.", model.vision_proj), ("text_proj.", model.text_proj), ("itm_head.", model.itm_head))
    tensors = encoder_tensors(model)
    for prefix, head in heads:
        tensors |= halved(head, (), prefix)
    return tensors


def configuration(architecture: str, design: Design) -> dict[str, Any]:
    text, tower = design.text, design.tower
    return {
        "architectures": [architecture],
        "dtype": "float16",
        "image_text_hidden_size": PROJECTION,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "label_smoothing": LABEL_SMOOTHING,
        "logit_scale_init_value": 2.6592,
        "model_type": "blip",
        "projection_dim": PROJECTION,
        "text_config": {
            "attention_probs_dropout_prob": 0.0,
            "bos_token_id": design.vocabulary.dec_id,
            "encoder_hidden_size": text.source_width,
            "eos_token_id": vocabulary.SEP,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.0,
            "hidden_size": text.width,
            "initializer_range": 0.02,
            "intermediate_size": text.mlp_width,
            "is_decoder": True,
            "label_smoothing": LABEL_SMOOTHING,
            "layer_norm_eps": text.norm_epsilon,
            "max_position_embeddings": text.num_positions,
            "model_type": "blip_text_model",
            "num_attention_heads": text.num_heads,
            "num_hidden_layers": text.num_layers,
            "pad_token_id": vocabulary.PAD,
            "projection_dim": PROJECTION,
            "sep_token_id": vocabulary.SEP,
            "tie_word_embeddings": True,
            "use_cache": True,
            "vocab_size": text.vocabulary,
        },
        "tie_word_embeddings": True,
        "vision_config": {
            "attention_dropout": 0.0,
            "hidden_act": "gelu",
            "hidden_size": tower.width,
            "image_size": tower.image_size,
            "initializer_range": 1e-10,
            "intermediate_size": tower.mlp_width,
            "layer_norm_eps": tower.norm_epsilon,
            "model_type": "blip_vision_model",
            "num_attention_heads": tower.num_heads,
            "num_hidden_layers": tower.num_layers,
            "patch_size": tower.patch_size,
            "projection_dim": PROJECTION,
        },
    }


PREPROCESSOR = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": MEAN,
    "image_processor_type": "BlipImageProcessor",
    "image_std": STD,
    "resample": 3,
    "rescale_factor": 1 / 255,
}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def write_model(
    folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], processor: str = "BlipProcessor"
) -> None:
    """What a checkpoint of either family has: weights, configuration and preprocessing."""
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "model.safetensors", tensors)
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it private
    write_json(folder / "config.json", config)
    side = config["vision_config"]["image_size"]
    size = {"size": {"height": side, "width": side}}
    write_json(folder / "preprocessor_config.json", PREPROCESSOR | size | {"processor_class": processor})


def write_checkpoint(folder: Path, architecture: str, tensors: Mapping[str, Tensor], design: Design) -> None:
    write_model(folder, tensors, configuration(architecture, design))
    if architecture != "BlipForImageTextRetrieval":
        ends = {"eos_token_id": vocabulary.SEP, "pad_token_id": vocabulary.PAD}
        write_json(folder / "generation_config.json", {"bos_token_id": design.vocabulary.dec_id} | ends)
    vocabulary.save(design.vocabulary, folder)


def export(trained: PreTraining, answering: Answering, folder: Path, matching: PreTraining | None = None) -> None:
    """`matching`: what matches, where that is not `trained`; its tower is the same."""
    tower, design = tower_tensors(trained), trained.design
    write_checkpoint(folder / "caption", "BlipForConditionalGeneration", tower | decoder_tensors(trained), design)
    write_checkpoint(
        folder / "vqa",
        "BlipForQuestionAnswering",
        tower | encoder_tensors(answering) | decoder_tensors(answering),
        design,
    )
    write_checkpoint(folder / "match", "BlipForImageTextRetrieval", tower | match_tensors(matching or trained), design)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="where training left its weights")
    parser.add_argument("--to", type=Path, default=CHECKPOINTS, help="default: %(default)s")
    options = parser.parse_args()
    trained = PreTraining()
    trained.load_state_dict(torch.load(options.work / "phase2.pt", weights_only=True))
    answering = Answering(trained)
    answering.load_state_dict(torch.load(options.work / "phase3.pt", weights_only=True))
    export(trained, answering, options.to)


if __name__ == "__main__":
    main()
