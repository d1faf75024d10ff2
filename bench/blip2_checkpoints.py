"""Full-size BLIP-2 checkpoints with seeded random bfloat16 weights, in Hugging Face format, written shard by shard."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import Blip2Config

from models.base import Task
from models.families.blip2 import networks as blip2
from models.weights import save

GOLDEN = Path("tests/golden/blip2/checkpoints")  # tiny, but their tokenizers will do
SHARD_BYTES = 10**9  # approximately; also the memory that writing takes
DEVIATION = 0.02  # of the weights; small enough for 39 blocks to stay finite in any dtype
CATALOG = """[profiles]
random-blip2 = ["random-blip2"]
random-blip2-int8 = ["random-blip2-int8"]
[models.random-blip2]
family = "blip2"
caption = { checkpoint = "opt" }
vqa = { checkpoint = "opt" }
match = { checkpoint = "itm" }
[models.random-blip2-int8]
family = "blip2"
caption = { checkpoint = "opt", quantize = "int8" }
vqa = { checkpoint = "opt", quantize = "int8" }
match = { checkpoint = "itm" }
"""


class Kind(NamedTuple):
    task: Task
    golden: str  # the checkpoint to copy all but sizes and weights from
    sizes: dict[str, dict[str, Any]]


# As published; what is left out has the same default in transformers.
VISION = {
    "hidden_size": 1408,
    "intermediate_size": 6144,
    "num_hidden_layers": 39,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}
QFORMER = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "encoder_hidden_size": 1408,
    "cross_attention_frequency": 2,
    "max_position_embeddings": 512,
    "vocab_size": 30_523,
}
OPT = {
    "hidden_size": 2560,
    "word_embed_proj_dim": 2560,
    "ffn_dim": 10_240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "vocab_size": 50_304,
}
KINDS = {
    "opt": Kind(Task.CAPTION, "opt", {"vision_config": VISION, "qformer_config": QFORMER, "text_config": OPT}),
    "itm": Kind(Task.MATCH, "itm_noimgtok", {"vision_config": VISION, "qformer_config": QFORMER}),
}


def write_blip2(folder: Path, kinds: Mapping[str, Kind] | None = None, device: str = "cpu") -> Path:
    """Checkpoints of the sizes of blip2-opt-2.7b and blip2-itm-vit-g, or of other `kinds`, with one tower, in `folder`
    (9.8 GB), if they are not there yet. Returns the catalog that names them. `device`: where the weights are drawn.
    Raises OSError if the disk has too little room."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, kind in (kinds or KINDS).items():
        if not (folder / name / "model.safetensors.index.json").is_file():
            _write(folder / name, kind, device)
    catalog = folder / "catalog.toml"
    catalog.write_text(CATALOG)
    return catalog


def _write(folder: Path, kind: Kind, device: str) -> None:
    """The index of the weights is written last: if it is there, the checkpoint is complete."""
    golden = GOLDEN / kind.golden
    shutil.copytree(golden, folder, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    content = json.loads((golden / "config.json").read_text()) | {"num_query_tokens": 32, "image_text_hidden_size": 256}
    for part, sizes in kind.sizes.items():
        content[part] |= sizes
    (folder / "config.json").write_text(json.dumps(content))
    pixels = content["vision_config"]["image_size"]
    processor = json.loads((golden / "preprocessor_config.json").read_text())
    processor["size"] = {"height": pixels, "width": pixels}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    shapes = _shapes(kind.task, Blip2Config.from_pretrained(folder))
    needed = sum(2 * shape.numel() for shape in shapes.values())
    if (free := shutil.disk_usage(folder).free) < needed + SHARD_BYTES:
        raise OSError(f"{folder} needs {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB")
    _write_weights(folder, shapes, device)


def _shapes(task: Task, config: Blip2Config) -> dict[str, torch.Size]:
    """Shapes by Hugging Face name."""
    with torch.device("meta"):
        modules = blip2.build_tower(config), blip2.build(task, config)
    return {
        name: part.shape
        for module in modules
        for ours, theirs in blip2.hugging_face_names(module).items()
        for name, part in zip(theirs, module.get_parameter(ours).chunk(len(theirs)), strict=True)
    }


def _write_weights(folder: Path, shapes: dict[str, torch.Size], device: str) -> None:
    places: dict[str, str] = {}
    for number, shard in enumerate(_shards(shapes, device)):
        file = f"model-{number:05}.safetensors"
        save(folder / file, shard)
        places |= dict.fromkeys(shard, file)
        shard.clear()  # before the next is made
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def _shards(shapes: dict[str, torch.Size], device: str) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        shard[name] = _random(name, shape, device).cpu()
        if sum(tensor.nbytes for tensor in shard.values()) >= SHARD_BYTES:
            yield shard
            shard = {}
    yield shard


def _random(name: str, shape: torch.Size, device: str) -> Tensor:
    """Seeded by the name, so that both checkpoints have the same tower."""
    tensor = torch.empty(shape, dtype=torch.bfloat16, device=device)
    if name.endswith(".bias"):
        return tensor.zero_()
    if len(shape) == 1:
        return tensor.fill_(1)  # weights of a normalisation
    return tensor.normal_(0, DEVIATION, generator=torch.Generator(device).manual_seed(zlib.crc32(name.encode())))
