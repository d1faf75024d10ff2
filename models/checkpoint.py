"""A checkpoint before its weights are read: its files, what its configuration says, and how much memory it needs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import nn

from models.base import ModelRunner, Preprocessing, Task
from models.catalog import CheckpointEntry, ModelEntry
from models.device import INT8, dtype_name
from models.families.family import FAMILIES, Family
from models.layers.linear import Int8Linear, PackedLinear, pack, saved_bytes, with_products
from models.layers.precision import serving_dtype
from models.layers.vit import ViT
from models.weights import CheckpointError, Weights, weight_map

# Of the authors' transform/ and processors/: CLIP's, for a checkpoint without a preprocessor's file.
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, eq=False)
class CheckpointPlan:
    """A checkpoint that is to be loaded, as its files describe it; one object, however many tasks name it."""

    entry: CheckpointEntry
    task: Task  # the first of them
    family: Family
    folder: Path
    config: Any  # the family's, of transformers
    dtype: torch.dtype  # the serving dtype
    preprocessing: Preprocessing
    int8: bool  # whether the big products are, of the tower too

    @cached_property
    def tower_digest(self) -> str:
        """What tells towers apart; it takes reading the tower, but not keeping it. Raises CheckpointError."""
        tower = self._tower()
        return Weights(self.folder).digest(tower, self._names(tower), tower.config)

    @cached_property
    def tower_bytes(self) -> int:
        return _kept_bytes(self._tower())

    @cached_property
    def network_bytes(self) -> int:
        """Of all but the tower."""
        return _kept_bytes(self._network())

    @property
    def dtype_name(self) -> str:
        """The serving dtype; and the language model's, where that is another one."""
        if self.int8:
            return INT8
        own, model = dtype_name(self.dtype), self.family.networks.language_model_of(self._network())
        others = [] if model is None else [self.entry.quantize or dtype_name(model.dtype)]
        return "+".join(dict.fromkeys([own, *others]))

    @property
    def uses_int8(self) -> bool:
        return self.int8 or self.entry.quantize is not None

    def load_tower(self, device: torch.device, *, to_compile: bool = False) -> ViT:
        """`to_compile`: with its weights as torch.compile wants them."""
        tower = self._tower()
        Weights(self.folder).load(tower, self._names(tower), device, None if to_compile else pack)
        return tower

    def load_network(self, device: torch.device) -> nn.Module:
        network = self._network()
        Weights(self.folder).load(network, self._names(network), device, pack)
        return network

    def make_runner(self, unit: str, network: nn.Module, device: torch.device) -> ModelRunner:
        """Raises CheckpointError if the tokenizer is another checkpoint's."""
        limit = self.entry.max_prompt_tokens
        options = {} if limit is None else {"max_prompt_tokens": limit}
        return self.family.make_runner(self.task, unit, network, self.folder, self.config, device, **options)

    def check_options(self) -> None:
        """Raises CheckpointError if the catalog asks for what this checkpoint cannot have."""
        asked = [name for name in ("quantize", "max_prompt_tokens") if getattr(self.entry, name) is not None]
        if asked and self.family.networks.language_model_of(self._network()) is None:
            raise CheckpointError(f"{asked[0]} is for a language model, which it does not have")

    def _tower(self) -> ViT:
        with torch.device("meta"):
            tower = ViT(self.family.networks.vision_config(self.config))
        serving_dtype(tower, self.dtype)
        return with_products(tower, Int8Linear if self.int8 else PackedLinear)

    def _network(self) -> nn.Module:
        with torch.device("meta"):
            network = self.family.networks.build(self.task, self.config)
        networks = self.family.networks
        networks.set_dtypes(network, self.dtype)
        quantized = networks.quantizable(network) if self.uses_int8 else None
        if quantized is not None:
            with_products(quantized, Int8Linear)
        return with_products(network, PackedLinear)

    def _names(self, module: nn.Module) -> dict[str, str]:
        return self.family.networks.hugging_face_names(module)


def _kept_bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters()) - saved_bytes(module)


def plan_checkpoints(
    entries: Mapping[str, ModelEntry], dtype: torch.dtype, *, int8: bool = False
) -> dict[str, dict[Task, CheckpointPlan]]:
    """What is to be loaded, by served model and task; files that are not here yet are fetched. Raises
    CheckpointError."""
    known: dict[tuple[CheckpointEntry, str], CheckpointPlan] = {}
    plans: dict[str, dict[Task, CheckpointPlan]] = {}
    for name, entry in entries.items():
        family = FAMILIES[entry.family]
        plans[name] = {}
        for task, slot in entry.checkpoints.items():
            key = slot, family.networks.ARCHITECTURES[task]
            if key not in known:
                known[key] = _plan(slot, task, family, dtype, int8)
            plans[name][task] = known[key]
    return plans


def kept_bytes(plans: Set[CheckpointPlan]) -> int:
    """The memory of the weights once all are loaded; equal towers count once. Raises CheckpointError."""
    towers: dict[str, int] = {}
    for plan in plans:
        with naming(plan.entry):
            towers[plan.tower_digest] = plan.tower_bytes
    return sum(towers.values()) + sum(plan.network_bytes for plan in plans)


def _plan(entry: CheckpointEntry, task: Task, family: Family, dtype: torch.dtype, int8: bool) -> CheckpointPlan:
    with naming(entry):
        folder = fetch(entry)
        if not (folder / "config.json").is_file():
            raise CheckpointError("it has no config.json")
        config = family.networks.CONFIG.from_pretrained(folder, local_files_only=True)
        needed = family.networks.ARCHITECTURES[task]
        if (config.architectures or [None])[0] != needed:
            raise CheckpointError(f"it is {config.architectures}; {task} needs {needed}")
        family.networks.check(task, config)
        preprocessing = _preprocessing(folder, family.networks.vision_config(config).image_size)
        plan = CheckpointPlan(entry, task, family, folder, config, dtype, preprocessing, int8)
        plan.check_options()
        return plan


def _preprocessing(folder: Path, size: int) -> Preprocessing:
    """Raises CheckpointError if it makes another size than the tower takes: transformers would cut it silently."""
    file = folder / "preprocessor_config.json"
    processor = json.loads(file.read_text()) if file.is_file() else {}
    made = processor.get("size", size)
    if made not in (size, {"height": size, "width": size}):
        raise CheckpointError(f"the preprocessor makes {made}, the tower takes {size} pixels")
    mean, std = processor.get("image_mean", IMAGE_MEAN), processor.get("image_std", IMAGE_STD)
    return Preprocessing(size, tuple(mean), tuple(std))


def fetch(entry: CheckpointEntry) -> Path:
    """The folder of a checkpoint; from the hub, or its cache, if it is not one itself. Files that are complete are not
    fetched again, and one whose connection was cut goes on where it ended."""
    if (folder := Path(entry.checkpoint)).is_absolute():  # the catalog's: it is there
        return folder
    for weights in ("*.safetensors", "*.bin"):
        patterns = ["*.json", "*.txt", weights]
        folder = Path(snapshot_download(entry.checkpoint, revision=entry.revision, allow_patterns=patterns))
        if any(folder.glob(weights)):
            _check_shards(folder, f"{weights}.index.json")
            return folder
    raise CheckpointError("the repository holds no weights")


def _check_shards(folder: Path, indices: str) -> None:
    """Raises CheckpointError where files are missing: with the hub out of reach, its client takes what is there."""
    for index in folder.glob(indices):
        for shard in sorted(set(weight_map(index).values())):
            if not (folder / shard).is_file():
                raise CheckpointError(f"{shard} is missing in {folder}: fetch it again")


@contextmanager
def naming(entry: CheckpointEntry) -> Iterator[None]:
    """Whatever is wrong inside becomes a CheckpointError of one line that names the checkpoint: the libraries that read
    its files raise many kinds of exceptions, and few say which file they mean."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"cannot load the checkpoint {entry.checkpoint}: {reason}") from error
