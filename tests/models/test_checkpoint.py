"""A checkpoint before its weights are loaded: what is shared, what it weighs, its options and its files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils._paths import filter_repo_objects
from torch import nn

from models import checkpoint, loader
from models.base import Checkpoint, Task
from models.catalog import CheckpointEntry, ModelEntry
from models.checkpoint import CheckpointPlan, kept_bytes, plan_checkpoints
from models.layers.linear import Int8Linear, PackedLinear, Writes
from models.weights import CheckpointError
from tests import golden
from tests.models import spoiling

CHECKPOINTS = golden.BLIP2 / "checkpoints"
CAPTION = 'caption = { checkpoint = "opt" }\n'
VQA = 'vqa = { checkpoint = "opt" }\n'
MATCH = 'match = { checkpoint = "itm" }\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Copies of the checkpoints, to be spoiled."""
    for name in ("opt", "t5", "itm"):
        shutil.copytree(CHECKPOINTS / name, tmp_path / name)
    return tmp_path


def load(folder: Path, entries: str, dtype: str = "fp32") -> dict[Task, Checkpoint]:
    return dict(spoiling.load(folder, entries, dtype, "blip2").checkpoints)


def plans(
    folder: Path, dtype: torch.dtype = torch.float32, *, int8_head: bool = False, **slots: CheckpointEntry
) -> set[CheckpointPlan]:
    anchored = {
        task: slot.model_copy(update={"checkpoint": str(folder / slot.checkpoint)}) for task, slot in slots.items()
    }
    entry = ModelEntry(family="blip2", **anchored)
    return set(plan_checkpoints({"mine": entry}, dtype, int8_head=int8_head)["mine"].values())


OPT, ITM = CheckpointEntry(checkpoint="opt"), CheckpointEntry(checkpoint="itm")
INT8 = CheckpointEntry(checkpoint="opt", quantize="int8")


def test_a_checkpoint_named_twice_is_loaded_once(folder: Path) -> None:
    checkpoints = load(folder, CAPTION + VQA + MATCH)
    assert set(checkpoints) == {Task.CAPTION, Task.VQA, Task.MATCH, Task.EMBED, Task.CAPFILT}
    assert checkpoints[Task.CAPTION] is checkpoints[Task.VQA]
    assert checkpoints[Task.CAPTION].heads is not checkpoints[Task.MATCH].heads


def test_with_other_options_it_is_another(folder: Path) -> None:
    checkpoints = load(folder, CAPTION + 'vqa = { checkpoint = "opt", max_prompt_tokens = 32 }')
    assert checkpoints[Task.CAPTION] is not checkpoints[Task.VQA]
    assert checkpoints[Task.CAPTION].tower is checkpoints[Task.VQA].tower


def test_both_tasks_are_warmed_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warmed = []
    monkeypatch.setattr(loader, "_warm_up", lambda _, requests: warmed.append(requests))
    load(folder, CAPTION + VQA)
    assert warmed == [loader.WARM_UP[Task.CAPTION], loader.WARM_UP[Task.VQA]]


def test_a_tower_is_read_into_memory_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, load_tower = [], CheckpointPlan.load_tower

    def counted(plan: CheckpointPlan, device: torch.device, **options: Any) -> Any:
        loaded.append(plan)
        return load_tower(plan, device, **options)

    monkeypatch.setattr(CheckpointPlan, "load_tower", counted)
    checkpoints = load(folder, CAPTION + MATCH + 'vqa = { checkpoint = "t5" }')
    assert len({checkpoint.tower for checkpoint in checkpoints.values()}) == len(loaded) == 1
    assert checkpoints[Task.MATCH].tower.unit == f"tower-{loaded[0].tower_digest[:8]}"


def held_bytes(module: nn.Module) -> int:
    packed = [part for part in module.modules() if isinstance(part, PackedLinear) and not part.weight.numel()]
    packed_bytes = sum(4 * part.in_features * part.out_features for part in packed)
    return packed_bytes + sum(parameter.nbytes for parameter in module.parameters())


def test_the_memory_is_known_before_loading(folder: Path) -> None:
    (opt,), (int8,), (itm,) = plans(folder, caption=OPT), plans(folder, caption=INT8), plans(folder, match=ITM)
    cpu = torch.device("cpu")
    for plan in (opt, itm):
        network, tower = plan.load_network(cpu), plan.load_tower(cpu)
        assert (plan.network_bytes, plan.tower_bytes) == (held_bytes(network), held_bytes(tower))
    for kind in ("opt", "t5"):
        entry = CheckpointEntry(checkpoint=kind)
        (exact,), (headed,) = plans(folder, caption=entry), plans(folder, caption=entry, int8_head=True)
        network = headed.load_network(cpu)
        assert isinstance(network, Writes)
        head, weight, _ = network.vocabulary()
        assert head.in_int8 is not None
        assert headed.network_bytes - exact.network_bytes == weight.numel() + 12 * len(weight)
        states = torch.randn(2, weight.shape[1])
        with torch.inference_mode():
            assert (head.project(states, weight, None) - states @ weight.T).norm() < 0.025 * (states @ weight.T).norm()
    quantized = [part for part in int8.load_network(cpu).modules() if isinstance(part, Int8Linear)]
    weights = sum(part.in_features * part.out_features for part in quantized)
    assert 2 * weights < opt.network_bytes - int8.network_bytes < 3 * weights
    assert kept_bytes({opt, itm}) == opt.tower_bytes + opt.network_bytes + itm.network_bytes


def test_a_shared_tower_counts_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = int(kept_bytes(plans(folder, caption=OPT, vqa=OPT, match=ITM)) * loader.MEMORY_MARGIN)
    monkeypatch.setattr(loader, "free_bytes", lambda _: needed + 1)
    assert load(folder, CAPTION + VQA + MATCH)
    monkeypatch.setattr(loader, "free_bytes", lambda _: needed - 1)
    with pytest.raises(CheckpointError, match=r"the weights need 0\.0 GB on cpu, 0\.0 GB are free"):
        load(folder, CAPTION + VQA + MATCH)


def test_the_temperature_is_the_catalogs_or_that_of_the_start_of_training(folder: Path) -> None:
    """BLIP-2's config.json holds none."""
    checkpoints = load(folder, CAPTION + MATCH)
    assert checkpoints[Task.MATCH].temperature == pytest.approx(1 / 0.07, rel=1e-4)
    assert checkpoints[Task.CAPTION].temperature is None
    own = load(folder, 'match = { checkpoint = "itm", temperature = 43.5 }')
    assert own[Task.MATCH].temperature == own[Task.EMBED].temperature == 43.5
    with pytest.raises(CheckpointError, match="temperature is for a checkpoint of match"):
        load(folder, 'caption = { checkpoint = "opt", temperature = 43.5 }')


@pytest.mark.parametrize("option", ['quantize = "int8"', "max_prompt_tokens = 32"])
def test_an_option_without_a_language_model(folder: Path, option: str) -> None:
    reason = spoiling.complaint(folder, f'match = {{ checkpoint = "itm", {option} }}', "itm", "blip2")
    assert reason == f"{option.split()[0]} is for a language model, which it does not have"


@pytest.mark.parametrize("name", ["opt", "t5", "itm"])
def test_of_a_hub_repository_only_what_is_needed_is_fetched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for extra in ("pytorch_model.bin", "README.md", "flax_model.msgpack"):
        (folder / name / extra).write_bytes(b"")
    wanted, fetched = [], folder / "fetched"

    def snapshot(repository: str, revision: str, allow_patterns: list[str]) -> str:
        wanted.append((repository, revision))
        files = [path.name for path in (folder / name).iterdir()]
        fetched.mkdir(exist_ok=True)
        for file in filter_repo_objects(files, allow_patterns=allow_patterns):
            shutil.copy(folder / name / file, fetched / file)
        return str(fetched)

    monkeypatch.setattr(checkpoint, "snapshot_download", snapshot)
    slot = "match" if name == "itm" else "vqa"
    assert load(folder, f'{slot} = {{ checkpoint = "some/repository", revision = "abc" }}')
    assert wanted == [("some/repository", "abc")]
    known = {path.name for path in (CHECKPOINTS / name).iterdir()}
    assert {path.name for path in fetched.iterdir()} == known - {"spiece.model"}  # tokenizer.json says the same
