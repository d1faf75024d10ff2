"""Weights: from a checkpoint in Hugging Face format into our modules and back, by a stated key map."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

KeyMap = tuple[tuple[str, str], ...]

# Our name -> the Hugging Face name: every pattern that matches is replaced, in order.
VIT_KEYS: KeyMap = (
    (r"^class_token$", "embeddings.class_embedding"),
    (r"^positions$", "embeddings.position_embedding"),
    (r"^patches\.", "embeddings.patch_embedding."),
    (r"^blocks\.", "encoder.layers."),
    (r"\.attention_norm\.", ".layer_norm1."),
    (r"\.qkv\.", ".self_attn.qkv."),
    (r"\.out\.", ".self_attn.projection."),
    (r"\.mlp_norm\.", ".layer_norm2."),
    (r"\.up\.", ".mlp.fc1."),
    (r"\.down\.", ".mlp.fc2."),
    (r"^", "vision_model."),
)
MED_KEYS: KeyMap = (
    (r"^tokens\.", "embeddings.word_embeddings."),
    (r"^positions\.", "embeddings.position_embeddings."),
    (r"^norm\.", "embeddings.LayerNorm."),
    (r"^layers\.(\d+)\.norm\.", r"encoder.layer.\1.output.LayerNorm."),
    (r"^layers\.", "encoder.layer."),
    (r"\.self_attention\.", ".attention."),
    (r"\.cross_attention\.", ".crossattention."),
    (r"\.(attention|crossattention)\.(query|key|value)\.", r".\1.self.\2."),
    (r"\.(attention|crossattention)\.out\.", r".\1.output.dense."),
    (r"\.(attention|crossattention)\.norm\.", r".\1.output.LayerNorm."),
    (r"\.up\.", ".intermediate.dense."),
    (r"\.down\.", ".output.dense."),
)
LM_HEAD_KEYS: KeyMap = (
    (r"^transform\.", "transform.dense."),
    (r"^norm\.", "transform.LayerNorm."),
)
# Tied weights: a checkpoint may hold either name.
TIED = {
    "text_decoder.bert.embeddings.word_embeddings.weight": "text_decoder.cls.predictions.decoder.weight",
    "text_decoder.cls.predictions.bias": "text_decoder.cls.predictions.decoder.bias",
}


class CheckpointError(RuntimeError):
    """A checkpoint is missing or is not what its configuration says; the message is one line for the operator."""


def rename(name: str, keys: KeyMap) -> str:
    """Our parameter name in Hugging Face's words."""
    for pattern, replacement in keys:
        name = re.sub(pattern, replacement, name)
    return name


class Weights:
    """The tensors of a checkpoint folder, read one by one when asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = self._index()

    def _index(self) -> dict[str, Path]:
        """Tensor name -> the safetensors file that holds it."""
        sharded = self._folder / "model.safetensors.index.json"
        if sharded.is_file():
            names: dict[str, str] = json.loads(sharded.read_text())["weight_map"]
            return {name: self._folder / file for name, file in names.items()}
        single = self._folder / "model.safetensors"
        if single.is_file():
            with safe_open(single, framework="pt") as file:
                return dict.fromkeys(file.keys(), single)
        pickled = self._folder / "pytorch_model.bin"
        if pickled.is_file():
            self._pickled = torch.load(pickled, map_location="cpu", weights_only=True)
            return dict.fromkeys(self._pickled, pickled)
        raise CheckpointError(f"no model.safetensors or pytorch_model.bin in {self._folder}")

    def read(self, name: str) -> Tensor:
        """One tensor as it is stored. Raises CheckpointError if there is none of that name."""
        found = next((key for key in (name, TIED.get(name)) if key in self._files), None)
        if found is None:
            raise CheckpointError(f"{self._folder} has no weight {name}")
        if self._files[found].suffix == ".bin":
            return self._pickled[found]
        # Opened anew for each: a mapping that stays would keep every page that was read resident.
        with safe_open(self._files[found], framework="pt") as file:
            return file.get_tensor(found)

    def load(self, module: nn.Module, names: Mapping[str, str], device: torch.device) -> None:
        """Fill a module that was built on the meta device, each parameter straight into its dtype and place.

        `names`: our parameter name -> Hugging Face name. Raises CheckpointError: a weight is missing or misshapen."""
        state = {}
        for ours, parameter in module.named_parameters():
            tensor = self.read(names[ours])
            if tensor.shape != parameter.shape:
                raise CheckpointError(
                    f"{self._folder}: {names[ours]} has shape {tuple(tensor.shape)}, "
                    f"its configuration says {tuple(parameter.shape)}"
                )
            state[ours] = tensor.to(device, parameter.dtype, copy=True)
        module.load_state_dict(state, assign=True)
        module.requires_grad_(False).eval()


def save(path: Path, parts: Mapping[str, Tensor]) -> None:
    """Write tensors, by Hugging Face name, to a safetensors file."""
    save_file({name: tensor.contiguous() for name, tensor in parts.items()}, path, metadata={"format": "pt"})


def tensor_digest(module: nn.Module, config: object) -> str:
    """SHA-256 over a module's configuration and the names, dtypes and values of its parameters."""
    digest = hashlib.sha256(repr(config).encode())
    for name, parameter in sorted(module.named_parameters()):
        digest.update(f"{name} {parameter.dtype}".encode())
        digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
