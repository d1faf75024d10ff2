"""A checkpoint before its weights are read: its files, what its configuration says, and how much memory it needs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from torch import nn
from transformers import BlipConfig

from models import blip
from models.base import Preprocessing, Task
from models.blip_runners import SpecialTokens
from models.catalog import CheckpointEntry
from models.layers import serving_dtype
from models.text import WordPiece
from models.vit import ViT
from models.weights import CheckpointError

# Of the authors' transform/: CLIP's, for a checkpoint without a preprocessor's file.
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class CheckpointPlan:
    """A checkpoint that is to be loaded, as its files describe it."""

    entry: CheckpointEntry
    task: Task
    folder: Path
    config: BlipConfig
    dtype: torch.dtype

    @cached_property
    def num_bytes(self) -> int:
        return sum(parameter.nbytes for module in self.build() for parameter in module.parameters())

    def build(self) -> tuple[ViT, nn.Module]:
        """The tower and the network, without weights, on the meta device."""
        with torch.device("meta"):
            tower, network = ViT(blip.vision_config(self.config)), blip.build(self.task, self.config)
        serving_dtype(tower, self.dtype), serving_dtype(network, self.dtype)
        return tower, network

    def special_tokens(self, tokenizer: WordPiece) -> SpecialTokens:
        """[DEC] and [ENC], not in the tokenizer files. Raises CheckpointError if these are another checkpoint's."""
        text = self.config.text_config
        special = SpecialTokens(dec=text.bos_token_id, enc=text.bos_token_id + 1)
        if special.enc >= text.vocab_size:
            raise CheckpointError(f"[ENC] is {special.enc}, but the vocabulary has {text.vocab_size} entries")
        if tokenizer.stop_id != text.sep_token_id or not special.dec <= len(tokenizer) <= text.vocab_size:
            raise CheckpointError(
                f"the tokenizer ({len(tokenizer)} entries, [SEP] {tokenizer.stop_id}) is not the one of config.json "
                f"({special.dec} entries before [DEC], [SEP] {text.sep_token_id})"
            )
        return special

    def preprocessing(self) -> Preprocessing:
        """Raises CheckpointError if it makes another size than the tower takes: transformers would cut it silently."""
        size: int = self.config.vision_config.image_size
        file = self.folder / "preprocessor_config.json"
        processor = json.loads(file.read_text()) if file.is_file() else {}
        made = processor.get("size", size)
        if made not in (size, {"height": size, "width": size}):
            raise CheckpointError(f"the preprocessor makes {made}, the tower takes {size} pixels")
        mean, std = processor.get("image_mean", IMAGE_MEAN), processor.get("image_std", IMAGE_STD)
        return Preprocessing(size, tuple(mean), tuple(std))


def plan_checkpoint(entry: CheckpointEntry, task: Task, dtype: torch.dtype) -> CheckpointPlan:
    """Fetch the files that are not here yet. Raises CheckpointError."""
    with naming(entry):
        folder = _fetch(entry)
        if not (folder / "config.json").is_file():
            raise CheckpointError("it has no config.json")
        config = BlipConfig.from_pretrained(folder, local_files_only=True)
        if (config.architectures or [None])[0] != blip.ARCHITECTURES[task]:
            raise CheckpointError(f"it is {config.architectures}; {task} needs {blip.ARCHITECTURES[task]}")
        if {config.vision_config.hidden_act, config.text_config.hidden_act} != {"gelu"}:
            raise CheckpointError("its activation is not BLIP's, gelu")
        return CheckpointPlan(entry, task, folder, config, dtype)


def _fetch(entry: CheckpointEntry) -> Path:
    """The folder of a checkpoint; from the hub, or its cache, if it is not one itself."""
    if (folder := Path(entry.checkpoint)).is_absolute():  # the catalog's: it is there
        return folder
    for weights in ("*.safetensors", "*.bin"):
        patterns = ["*.json", "*.txt", weights]
        folder = Path(snapshot_download(entry.checkpoint, revision=entry.revision, allow_patterns=patterns))
        if any(folder.glob(weights)):
            return folder
    raise CheckpointError("the repository holds no weights")


@contextmanager
def naming(entry: CheckpointEntry) -> Iterator[None]:
    """Whatever is wrong inside becomes a CheckpointError of one line that names the checkpoint: the libraries that read
    its files raise many kinds of exceptions, and few say which file they mean."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"cannot load the checkpoint {entry.checkpoint}: {reason}") from error
