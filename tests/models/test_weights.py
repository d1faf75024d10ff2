"""Reading weights: from every kind of file, one at a time, straight into place."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError

import psutil
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import BlipConfig

from models.families.blip import networks as blip
from models.weights import CheckpointError, Weights, save, tensor_digest
from tests.golden import BLIP

CAPTION = BLIP / "checkpoints" / "caption"
CPU = torch.device("cpu")


def small() -> nn.Linear:
    return nn.Linear(2, 3, device="meta")


NAMES = {"weight": ("w",), "bias": ("b",)}


def test_weights_go_straight_into_their_dtype(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", {"w": torch.ones(3, 2, dtype=torch.float16), "b": torch.zeros(3)})
    module = small().to(torch.bfloat16)
    Weights(tmp_path, {}).load(module, NAMES, CPU)
    assert module.weight.dtype is torch.bfloat16
    assert module.weight.tolist() == [[1, 1]] * 3
    assert not module.weight.requires_grad


def test_each_part_is_finished_when_its_own_weights_are_there(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", {"w": torch.ones(3, 2), "b": torch.zeros(3)})
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 3))
    finished: list[tuple[nn.Module, list[bool]]] = []
    Weights(tmp_path, {}).load(
        module,
        {f"{layer}.{ours}": theirs for layer in range(2) for ours, theirs in NAMES.items()},
        CPU,
        lambda part: finished.append((part, [value.is_meta for value in module.parameters()])),
    )
    assert finished[1:] == [(module[0], [False, False, True, True]), (module[1], [False] * 4)]


@pytest.mark.parametrize(("file", "write"), [("model.safetensors", save_file), ("pytorch_model.bin", torch.save)])
def test_a_checkpoint_of_several_files(tmp_path: Path, file: str, write: Callable[[object, Path], None]) -> None:
    for name, tensor in {"w": torch.ones(3, 2), "b": torch.zeros(3)}.items():
        write({name: tensor}, tmp_path / f"{name}{Path(file).suffix}")
    index = {"weight_map": {name: f"{name}{Path(file).suffix}" for name in "wb"}}
    (tmp_path / f"{file}.index.json").write_text(json.dumps(index))
    weights = Weights(tmp_path, {})
    assert [weights.read(name).tolist() for name in "bwb"] == [[0] * 3, [[1, 1]] * 3, [0] * 3]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the resident memory from /proc")
@pytest.mark.parametrize(("file", "write"), [("model.safetensors", save_file), ("pytorch_model.bin", torch.save)])
def test_what_was_read_leaves_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, write: Callable[[object, Path], None]
) -> None:
    megabyte = 2**20
    monkeypatch.setattr("models.weights.MAPPED_BYTES", 8 * megabyte)
    names = [f"w{number}" for number in range(64)]
    write({name: torch.ones(megabyte // 4) for name in names}, tmp_path / file)
    weights, process = Weights(tmp_path, {}), psutil.Process()
    before, most = process.memory_info().rss, 0
    for name in names:
        assert weights.read(name).sum() == megabyte // 4
        most = max(most, process.memory_info().rss - before)
    assert most < 24 * megabyte


def test_a_pickled_checkpoint_is_read_as_weights_only(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3, 2), "b": torch.zeros(3)}, tmp_path / "pytorch_model.bin")
    assert Weights(tmp_path, {}).read("w").sum() == 6
    torch.save({"w": Path("code")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UnpicklingError, match="Weights only load failed"):
        Weights(tmp_path, {})


def test_tied_weights_go_by_either_name(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", {"other": torch.ones(2)})
    assert Weights(tmp_path, {"w": ("another", "other")}).read("w").tolist() == [1, 1]
    with pytest.raises(CheckpointError, match="no weight w"):
        Weights(tmp_path, {}).read("w")


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [({"w": torch.ones(3, 2)}, "no weight b"), ({"w": torch.ones(2, 3), "b": torch.zeros(3)}, r"shape \(2, 3\)")],
)
def test_a_wrong_checkpoint_is_one_clear_line(tmp_path: Path, tensors: dict[str, torch.Tensor], complaint: str) -> None:
    save(tmp_path / "model.safetensors", tensors)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        Weights(tmp_path, {}).load(small(), NAMES, CPU)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model"):
        Weights(tmp_path, {})


def test_a_digest_tells_values_dtypes_and_configurations_apart() -> None:
    module = nn.Linear(2, 2)
    same, other = nn.Linear(2, 2), nn.Linear(2, 2)
    same.load_state_dict(module.state_dict())
    assert tensor_digest(module, "a") == tensor_digest(same, "a") != tensor_digest(other, "a")
    assert tensor_digest(same, "a") != tensor_digest(same, "b")
    assert tensor_digest(same, "a") != tensor_digest(same.to(torch.bfloat16), "a")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_digest_is_known_before_loading(dtype: torch.dtype) -> None:
    config, weights = BlipConfig.from_pretrained(CAPTION), Weights(CAPTION, blip.TIED)
    with torch.device("meta"):
        tower = blip.build_tower(config)
        blip.set_dtypes(tower, dtype)
    names = blip.hugging_face_names(tower)
    digest = weights.digest(tower, names, "a")
    weights.load(tower, names, CPU)
    assert digest == tensor_digest(tower, "a")
