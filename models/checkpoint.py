"""A checkpoint before its weights are loaded: its files, its configuration and the memory it will need."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import exp
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import nn

from models.base import ModelRunner, Task
from models.catalog import CheckpointEntry, ModelEntry
from models.device import INT8, choose_dtype, computes_in_fp16, dtype_name
from models.families import FAMILIES
from models.families.family import Family, RunnerParts
from models.inputs import Preprocessing
from models.layers.kernels import AUTOMATIC, Kernels, Shape, has_fbgemm_fp16
from models.layers.linear import (
    INT8_ROW_BYTES,
    Fp16Linear,
    Int8Linear,
    Kind,
    PackedLinear,
    Writes,
    saved_bytes,
    with_products,
)
from models.layers.tower import Tower
from models.weights import CheckpointError, Names, Weights, weight_map

LOGIT_SCALE = 2.6592  # log(1 / 0.07), with which BLIP's and BLIP-2's authors begin to train


@dataclass(frozen=True, eq=False)
class CheckpointPlan:
    """A checkpoint that will be loaded. Tasks that name the same one share the plan."""

    entry: CheckpointEntry
    task: Task  # the first that names it
    family: Family
    folder: Path
    config: Any  # the family's, from transformers
    dtype: torch.dtype  # the serving dtype
    preprocessing: Preprocessing
    products: Kind  # the big matrix products of tower and network
    kernels: Kernels
    int8_head: bool  # the projection to the vocabulary in int8, where there is one

    @cached_property
    def tower_digest(self) -> str:
        """Equal for equal towers. Reads the tower's weights, one at a time. Raises CheckpointError."""
        tower = self._tower()
        return self._weights().digest(tower, self._names(tower), tower.config)

    @cached_property
    def tower_bytes(self) -> int:
        """Memory of its weights once loaded."""
        return _kept_bytes(self._tower())

    @cached_property
    def network_bytes(self) -> int:
        """Memory of all other weights once loaded."""
        network = self._network()
        head = network.vocabulary()[1] if self.int8_head and isinstance(network, Writes) else None
        return _kept_bytes(network) + (0 if head is None else head.numel() + INT8_ROW_BYTES * len(head))

    @property
    def dtype_name(self) -> str:
        """The serving dtype, such as "bf16"; "fp32+int8" if the language model's is another, "bf16+int8-head" if that
        of the projection to the vocabulary is."""
        return self._products_name + ("+int8-head" if self.writes_in_int8 else "")

    @property
    def _products_name(self) -> str:
        if self.products is Int8Linear:
            return INT8
        if self.products is Fp16Linear:
            return "+".join(dict.fromkeys(["fp16", *filter(None, [self.entry.quantize])]))
        own, model = dtype_name(self.dtype), self.family.networks.language_model_of(self._network())
        others = [] if model is None else [self.entry.quantize or dtype_name(model.dtype)]
        return "+".join(dict.fromkeys([own, *others]))

    @property
    def uses_int8(self) -> bool:
        return self.products is Int8Linear or self.entry.quantize is not None

    @property
    def writes_in_int8(self) -> bool:
        return self.int8_head and isinstance(self._network(), Writes)

    @property
    def temperature(self) -> float | None:
        """What cosines are multiplied by before a softmax over them; None: it has no ITC."""
        if self.task is not Task.MATCH:
            return None
        return self.entry.temperature or exp(getattr(self.config, "logit_scale_init_value", LOGIT_SCALE))

    def load_tower(self, device: torch.device, *, to_compile: bool = False) -> Tower:
        """`to_compile`: leave the weights unpacked, for torch.compile. Raises CheckpointError."""
        tower = self._tower()
        self._weights().load(tower, self._names(tower), device, None if to_compile else self.kernels.pack)
        return tower

    def load_network(self, device: torch.device) -> nn.Module:
        """All of the checkpoint but its tower. Raises CheckpointError."""
        network = self._network()
        self._weights().load(network, self._names(network), device, self.kernels.pack)
        if isinstance(network, Writes):
            head, weight, bias = network.vocabulary()
            head.prepare(weight, bias, self.kernels, int8=self.int8_head)
        return network

    def make_runner(self, unit: str, network: nn.Module, device: torch.device) -> ModelRunner:
        """Raises CheckpointError if the tokenizer belongs to another checkpoint."""
        limit = self.entry.max_prompt_tokens
        return self.family.make_runner(RunnerParts(self.task, unit, network, self.folder, self.config, device, limit))

    def check_options(self) -> None:
        """Raises CheckpointError if the catalog sets an option that needs a language model, and there is none, or one
        that needs ITC."""
        if self.entry.temperature is not None and self.task is not Task.MATCH:
            raise CheckpointError("temperature is for a checkpoint of match, whose cosines it multiplies")
        asked = [name for name in ("quantize", "max_prompt_tokens") if getattr(self.entry, name) is not None]
        if asked and self.family.networks.language_model_of(self._network()) is None:
            raise CheckpointError(f"{asked[0]} is for a language model, which it does not have")

    def _tower(self) -> Tower:
        networks = self.family.networks
        with torch.device("meta"):
            tower = networks.build_tower(self.config)
        networks.set_dtypes(tower, self.dtype)
        return with_products(tower, self.products, Shape.TOWER)

    def _network(self) -> nn.Module:
        networks = self.family.networks
        with torch.device("meta"):
            network = networks.build(self.task, self.config)
        networks.set_dtypes(network, self.dtype)
        kind = self.products if self.entry.quantize is None else Int8Linear
        if (part := networks.quantizable(network)) is not None:
            with_products(part, kind)
        return with_products(network, PackedLinear)

    @cached_property
    def _canonical(self) -> Callable[[str], str]:
        canonical = self.family.canonical
        return str if canonical is None else canonical(self.config)

    def _weights(self) -> Weights:
        return Weights(self.folder, self.family.networks.TIED, self._canonical)

    def _names(self, module: nn.Module) -> Names:
        return self.family.networks.hugging_face_names(module)


def _kept_bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters()) - saved_bytes(module)


def plan_checkpoints(
    entries: Mapping[str, ModelEntry],
    dtype: torch.dtype,
    products: Kind = PackedLinear,
    kernels: Kernels = AUTOMATIC,
    *,
    int8_head: bool = False,
) -> dict[str, dict[Task, CheckpointPlan]]:
    """The plans by served model and task. `dtype`: the serving dtype. Fetches files that are not here yet.

    Raises CheckpointError."""
    known: dict[tuple[CheckpointEntry, str], CheckpointPlan] = {}
    plans: dict[str, dict[Task, CheckpointPlan]] = {}
    for name, entry in entries.items():
        family = FAMILIES[entry.family]
        plans[name] = {}
        for task, slot in entry.checkpoints.items():
            key = slot, family.networks.ARCHITECTURES[task]
            if key not in known:
                known[key] = _plan(slot, task, family, dtype, products, kernels, int8_head)
            plans[name][task] = known[key]
    return plans


def how_to_compute(dtype: str, device: torch.device) -> tuple[torch.dtype, Kind]:
    """The serving dtype, in which activations are, and the kind of the big matrix products. In fp16, on a CPU that does
    not compute in it, weights alone are in it, where FBGEMM is there."""
    if dtype == "fp16" and device.type == "cpu" and not computes_in_fp16() and has_fbgemm_fp16():
        return torch.float32, Fp16Linear
    return choose_dtype(dtype, device), Int8Linear if dtype == INT8 else PackedLinear


def kept_bytes(plans: Set[CheckpointPlan]) -> int:
    """Memory of all weights once loaded; equal towers count once. Raises CheckpointError."""
    towers: dict[str, int] = {}
    for plan in plans:
        with naming(plan.entry):
            towers[plan.tower_digest] = plan.tower_bytes
    return sum(towers.values()) + sum(plan.network_bytes for plan in plans)


def _plan(
    entry: CheckpointEntry,
    task: Task,
    family: Family,
    dtype: torch.dtype,
    products: Kind,
    kernels: Kernels,
    int8_head: bool,
) -> CheckpointPlan:
    with naming(entry):
        folder = fetch(entry, family)
        if not (folder / "config.json").is_file():
            raise CheckpointError("it has no config.json")
        config = family.networks.CONFIG.from_pretrained(folder, local_files_only=True)
        needed = family.networks.ARCHITECTURES[task]
        if (config.architectures or [None])[0] != needed:
            raise CheckpointError(f"it is {config.architectures}; {task} needs {needed}")
        family.networks.check(task, config)
        preprocessing = family.networks.preprocessing(_processor(folder), config)
        plan = CheckpointPlan(entry, task, family, folder, config, dtype, preprocessing, products, kernels, int8_head)
        plan.check_options()
        return plan


def _processor(folder: Path) -> dict[str, Any]:
    file = folder / "preprocessor_config.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def fetch(entry: CheckpointEntry, family: Family) -> Path:
    """The checkpoint's folder: the entry's own, or that of a hub repository in the hub's cache. Downloads only what is
    missing, and resumes a file where its download broke off. Raises CheckpointError if the repository is incomplete."""
    if (folder := Path(entry.checkpoint)).is_absolute():  # made so by the catalog, because it exists
        return folder
    for weights in ("*.safetensors", "*.bin"):
        patterns = ["*.json", "*.txt", *family.files, weights]
        folder = Path(snapshot_download(entry.checkpoint, revision=entry.revision, allow_patterns=patterns))
        if any(folder.glob(weights)):
            _check_shards(folder, f"{weights}.index.json")
            return folder
    raise CheckpointError("the repository holds no weights")


def _check_shards(folder: Path, indices: str) -> None:
    """Raises CheckpointError if a shard is missing: with the hub out of reach, its client returns a partial folder."""
    for index in folder.glob(indices):
        for shard in sorted(set(weight_map(index).values())):
            if not (folder / shard).is_file():
                raise CheckpointError(f"{shard} is missing in {folder}: fetch it again")


@contextmanager
def naming(entry: CheckpointEntry) -> Iterator[None]:
    """Turns any exception into a CheckpointError of one line that names the checkpoint: the libraries that read its
    files raise many kinds, and few of them say which file they mean."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"cannot load the checkpoint {entry.checkpoint}: {reason}") from error
