"""Weights: from checkpoint files in Hugging Face format into our modules, and back."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

# From our parameter name to Hugging Face's: regular expressions and their replacements, each applied in turn.
KeyMap = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
# Our parameter name -> its Hugging Face name. Several: ours holds their tensors one after the other, each as large.
Names = Mapping[str, tuple[str, ...]]
# What is one matrix here, so that what has one input is one product -> what Hugging Face's files have apart.
JOINED: Mapping[str, tuple[str, ...]] = {
    "query_key_value": ("query", "key", "value"),
    "key_value": ("key", "value"),
    "gate_up": ("gate", "up"),
}
# Tied weights: Hugging Face name -> the other names under which a file may hold the same tensor.
Tied = Mapping[str, tuple[str, ...]]

MAPPED_BYTES = 2**27  # read from a pickled file before it is mapped anew, which takes some milliseconds


class CheckpointError(RuntimeError):
    """A checkpoint is missing or does not match its configuration; the message is one line for the operator."""


def weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> the file beside `index` that holds it."""
    names: dict[str, str] = json.loads(index.read_text())["weight_map"]
    return names


def rename(name: str, keys: KeyMap = (), prefix: str = "") -> tuple[str, ...]:
    """The Hugging Face name of our parameter; of one that is joined, those of its parts."""
    joined = next((part for part in name.split(".") if part in JOINED), None)
    own = [name] if joined is None else [name.replace(joined, part) for part in JOINED[joined]]
    return tuple(prefix + _rename(one, keys) for one in own)


def _rename(name: str, keys: KeyMap) -> str:
    for pattern, replacement in keys:
        name = re.sub(pattern, replacement, name)
    return name


def named(module: nn.Module, keys: KeyMap = (), prefix: str = "") -> dict[str, Tensor]:
    """The parameters of a module by their Hugging Face names."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        theirs = rename(name, keys, prefix)
        tensors |= zip(theirs, _parts(parameter.detach(), len(theirs)), strict=True)
    return tensors


def _parts(joined: Tensor, number: int) -> Sequence[Tensor]:
    return joined.chunk(number) if number > 1 else [joined]


class Weights:
    """The tensors of a checkpoint folder, read one at a time on request. Files are memory-mapped, and their pages are
    released after reading.

    Raises CheckpointError if the folder holds no weights."""

    def __init__(self, folder: Path, tied: Tied, canonical: Callable[[str], str] = str) -> None:
        """`canonical`: the name by which a tensor is asked for, of that in its file."""
        self._folder = folder
        self._tied = tied
        self._canonical = canonical
        self._pickle = _Pickle()
        self._files = self._index()

    def _index(self) -> dict[str, tuple[Path, str]]:
        """Tensor name -> the file that holds it, and its name there."""
        return {self._canonical(name): (file, name) for name, file in self._stored().items()}

    def _stored(self) -> dict[str, Path]:
        for file in ("model.safetensors", "pytorch_model.bin"):
            sharded, single = self._folder / f"{file}.index.json", self._folder / file
            if sharded.is_file():
                return {name: self._folder / shard for name, shard in weight_map(sharded).items()}
            if single.is_file():
                return dict.fromkeys(self._names(single), single)
        raise CheckpointError(f"no model.safetensors or pytorch_model.bin in {self._folder}")

    def _names(self, file: Path) -> Iterable[str]:
        if file.suffix == ".bin":
            return self._pickle.open(file)
        with safe_open(file, framework="pt") as opened:
            return opened.keys()

    def read(self, name: str) -> Tensor:
        """One tensor as stored, under its name or one that is tied to it. Copy it: its file stays mapped as long as it
        lives. Raises CheckpointError if there is none."""
        found = next((key for key in (name, *self._tied.get(name, ())) if key in self._files), None)
        if found is None:
            raise CheckpointError(f"{self._folder} has no weight {name}")
        path, stored = self._files[found]
        if path.suffix == ".bin":
            return self._pickle.read(path, stored)
        # Opened for each tensor: a lasting mapping would keep every page that was read resident.
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(stored)

    def _read_for(self, names: Sequence[str], parameter: Tensor, device: torch.device) -> Tensor:
        """A copy in the parameter's dtype. Raises CheckpointError if it is missing or has another shape."""
        copies = [
            self._read_part(name, part.shape, device, parameter.dtype)
            for name, part in zip(names, _parts(parameter, len(names)), strict=True)
        ]
        return copies[0] if len(copies) == 1 else torch.cat(copies)

    def _read_part(self, name: str, shape: torch.Size, device: torch.device, dtype: torch.dtype) -> Tensor:
        tensor = self.read(name)
        if tensor.shape != shape:
            raise CheckpointError(
                f"{self._folder}: {name} has shape {tuple(tensor.shape)}, its configuration says {tuple(shape)}"
            )
        return tensor.to(device, dtype, copy=True)

    def load(
        self,
        module: nn.Module,
        names: Names,
        device: torch.device,
        finish: Callable[[nn.Module], None] | None = None,
    ) -> None:
        """Fill a module built on the meta device: each parameter goes straight to its dtype and device.

        `names`: with those of buffers that are weights, too. `finish` is called
        with each submodule once its own weights are in. Raises CheckpointError if a weight is missing or has another
        shape."""
        for path, part in module.named_modules():
            for name, parameter in list(part.named_parameters(recurse=False)):
                ours = f"{path}.{name}" if path else name
                tensor = self._read_for(names[ours], parameter, device)
                setattr(part, name, nn.Parameter(tensor, requires_grad=False))
            for name, buffer in list(part.named_buffers(recurse=False)):
                ours = f"{path}.{name}" if path else name
                filled = self._read_for(names[ours], buffer, device) if ours in names else buffer.to(device)
                setattr(part, name, filled)
            if finish is not None:
                finish(part)
        module.eval()

    def digest(self, module: nn.Module, names: Names, config: object) -> str:
        """The module's `tensor_digest` as it will be once loaded; only one tensor is in memory at a time. Raises
        CheckpointError."""
        weights = dict(module.named_parameters()) | {
            name: value for name, value in module.named_buffers() if name in names
        }
        cpu = torch.device("cpu")
        return _digest(config, ((name, self._read_for(names[name], weights[name], cpu)) for name in sorted(weights)))


class _Pickle:
    """The torch.save file read last, memory-mapped."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._tensors: dict[str, Tensor] = {}
        self._bytes = 0  # read since it was mapped

    def open(self, file: Path) -> dict[str, Tensor]:
        if file != self._file or self._bytes > MAPPED_BYTES:
            self._tensors.clear()  # drops the old mapping and its resident pages
            self._tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            self._file, self._bytes = file, 0
        return self._tensors

    def read(self, file: Path, name: str) -> Tensor:
        tensor = self.open(file)[name]
        self._bytes += tensor.nbytes
        return tensor


def save(path: Path, parts: Mapping[str, Tensor]) -> None:
    """Write tensors, by Hugging Face name, to a safetensors file at `path`."""
    save_file({name: tensor.contiguous() for name, tensor in parts.items()}, path, metadata={"format": "pt"})


def tensor_digest(module: nn.Module, config: object) -> str:
    """SHA-256 over a module's configuration and the names, dtypes and values of its parameters."""
    return _digest(config, sorted(module.named_parameters()))


def _digest(config: object, tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256(repr(config).encode())
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
