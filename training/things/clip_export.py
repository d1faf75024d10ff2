"""Write CLIP, CLIPSeg and OWL-ViT as checkpoints in the library's format, in float16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import CLIPModel, CLIPSegForImageSegmentation, OwlViTForObjectDetection

from models.weights import save
from training import vocabulary
from training.data import MEAN, STD
from training.export import write_json
from training.things.clip import NUM_POSITIONS
from training.things.words import Words


def export_clip(
    clip: CLIPModel, clipseg: CLIPSegForImageSegmentation, owl: OwlViTForObjectDetection, words: Words, folder: Path
) -> None:
    processors = {
        "clip": ("CLIPProcessor", "CLIPImageProcessor"),
        "clipseg": ("CLIPSegProcessor", "ViTImageProcessor"),
        "owl": ("OwlViTProcessor", "OwlViTImageProcessor"),
    }
    for (name, named), model in zip(processors.items(), (clip, clipseg, owl), strict=True):
        write(folder / name, model, *named, words)


def write(folder: Path, model: Any, processor: str, image_processor: str, words: Words) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "model.safetensors", {name: value.detach().half() for name, value in model.named_parameters()})
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it private
    config = model.config.to_dict() | {"architectures": [type(model).__name__], "dtype": "float16"}
    write_json(folder / "config.json", config)
    side = model.config.vision_config.image_size
    write_json(
        folder / "preprocessor_config.json",
        {
            "do_center_crop": False,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": MEAN,
            "image_processor_type": image_processor,
            "image_std": STD,
            "processor_class": processor,
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"height": side, "width": side},
        },
    )
    vocabulary.save(words.pooled, folder, processor, max_tokens=NUM_POSITIONS)
