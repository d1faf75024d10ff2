"""From a profile to runners: memory, weights, sanity checks and warm-up."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from PIL import Image

from models import blip
from models.base import (
    CaptionInput,
    Checkpoint,
    Generated,
    GenerationSettings,
    ImageEmbeddingInput,
    ImageInput,
    Input,
    Item,
    ModelRunner,
    Op,
    Output,
    PairInput,
    QuestionInput,
    RankInput,
    ServedModel,
    Task,
    TextInput,
    is_finite,
)
from models.blip_runners import RUNNERS
from models.catalog import CheckpointEntry, ModelEntry, Sanity, read_catalog
from models.checkpoint import CheckpointPlan, naming, plan_checkpoint
from models.device import choose_device, choose_dtype, dtype_name, free_bytes
from models.text import WordPiece
from models.tower import TowerRunner
from models.weights import CheckpointError, Weights, tensor_digest

log = logging.getLogger("blip.loader")

MEMORY_MARGIN = 1.15  # what loading may take over the weights
WARM_UP: dict[Task, tuple[Input, ...]] = {
    Task.CAPTION: (CaptionInput(settings=GenerationSettings(max_new_tokens=2)),),
    Task.VQA: (
        QuestionInput("what is it?", settings=GenerationSettings(max_new_tokens=2)),
        RankInput("is it?", ("yes", "no"), 2),
    ),
    Task.MATCH: (PairInput("a picture"), TextInput("a picture"), ImageEmbeddingInput()),
}


def load(profile: str, *, catalog: Path | None, device: str, dtype: str, threads: int) -> list[ServedModel]:
    """Load every checkpoint of a profile once, check it and warm it up.

    `device`: auto, cpu, cuda, mps; `dtype`: auto, fp32, bf16, fp16. Raises CatalogError and CheckpointError."""
    torch.set_num_threads(threads)
    place = choose_device(device)
    serving = choose_dtype(dtype, place)
    entries = read_catalog(catalog).profile(profile)
    plans = plan_checkpoints(entries, serving)
    _check_memory(plans, place)
    loader = _Loader(place)
    return [
        ServedModel(name, entry.family, loader.checkpoints(plans[name], entry.sanity), entry.note)
        for name, entry in entries.items()
    ]


def plan_checkpoints(entries: Mapping[str, ModelEntry], dtype: torch.dtype) -> dict[str, dict[Task, CheckpointPlan]]:
    """What `load` would load, by served model and task. Raises CheckpointError."""
    return {
        name: {task: plan_checkpoint(slot, task, dtype) for task, slot in entry.checkpoints.items()}
        for name, entry in entries.items()
    }


class _Loader:
    """Loads checkpoints, each once, and towers, each once however many checkpoints have it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._towers: dict[str, TowerRunner] = {}
        self._loaded: dict[tuple[CheckpointEntry, Task], Checkpoint] = {}
        self._units: set[str] = set()

    def checkpoints(self, plans: Mapping[Task, CheckpointPlan], sanity: Sanity | None) -> dict[Task, Checkpoint]:
        checkpoints = {task: self._checkpoint(plan) for task, plan in plans.items()}
        if sanity is not None:
            with naming(plans[Task.CAPTION].entry):
                _check_caption(checkpoints[Task.CAPTION], sanity)
        if Task.MATCH in checkpoints:
            checkpoints[Task.EMBED] = checkpoints[Task.MATCH]
        return checkpoints

    def _checkpoint(self, plan: CheckpointPlan) -> Checkpoint:
        key = plan.entry, plan.task
        if key not in self._loaded:
            with naming(plan.entry):
                self._loaded[key] = self._load(plan)
                _warm_up(self._loaded[key], WARM_UP[plan.task])
        return self._loaded[key]

    def _load(self, plan: CheckpointPlan) -> Checkpoint:
        weights, (tower, network) = Weights(plan.folder), plan.build()
        weights.load(tower, blip.hugging_face_names(tower), self._device)
        weights.load(network, blip.hugging_face_names(network), self._device)
        digest = tensor_digest(tower, tower.config)
        runner = self._towers.setdefault(digest, TowerRunner(f"tower-{digest[:8]}", tower, self._device))
        tokenizer, unit = WordPiece(plan.folder), self._new_unit(plan.entry.checkpoint)
        log.info("loaded %s, %.1f MB with %s", unit, plan.num_bytes / 1e6, runner.unit)
        return Checkpoint(
            name=unit,
            revision=plan.entry.revision,
            tower=runner,
            heads=RUNNERS[plan.task](unit, network, tokenizer, plan.special_tokens(tokenizer), self._device),
            preprocessing=plan.preprocessing(),
            dtype=dtype_name(plan.dtype),
            device=str(self._device),
        )

    def _new_unit(self, checkpoint: str) -> str:
        """The last two parts of the checkpoint's name, with a number where that is taken."""
        short = unit = "/".join(Path(checkpoint).parts[-2:])
        number = 1
        while unit in self._units:
            number += 1
            unit = f"{short}#{number}"
        self._units.add(unit)
        return unit


def _check_memory(plans: Mapping[str, Mapping[Task, CheckpointPlan]], device: torch.device) -> None:
    """Raises CheckpointError if the weights will not fit; a tower counts for each of its checkpoints, as it is read."""
    distinct = {(plan.entry, plan.task): plan for model in plans.values() for plan in model.values()}
    needed = sum(plan.num_bytes for plan in distinct.values()) * MEMORY_MARGIN
    available = free_bytes(device)
    if needed > available:
        raise CheckpointError(f"the weights need {needed / 1e9:.1f} GB on {device}, {available / 1e9:.1f} GB are free")


def _answers(checkpoint: Checkpoint, image: Image.Image, requests: tuple[Input, ...]) -> Iterator[Output]:
    encode = checkpoint.tower.prepare(ImageInput(image, checkpoint.preprocessing))
    (features,) = checkpoint.tower.encode([encode])
    yield features
    for request in requests:
        item = replace(checkpoint.heads.prepare(request), features=features)
        yield _run(checkpoint.heads, item)


def _run(runner: ModelRunner, item: Item) -> Output:
    if item.op is Op.SCORE:
        return runner.score([item])[0]
    generation = runner.generate([item])
    while True:
        for _, generated in generation.step():
            return generated


def _warm_up(checkpoint: Checkpoint, requests: tuple[Input, ...]) -> None:
    size = checkpoint.preprocessing.image_size
    for output in _answers(checkpoint, Image.new("RGB", (size, size), "grey"), requests):
        if not is_finite(output):
            raise CheckpointError(f"it computes NaN or infinity in {checkpoint.dtype}")


def _check_caption(checkpoint: Checkpoint, sanity: Sanity) -> None:
    with Image.open(sanity.image) as image:
        *_, answer = _answers(checkpoint, image.convert("RGB"), (CaptionInput(),))
    text = cast("Generated", answer).sequences[0].text
    if text != sanity.caption:
        raise CheckpointError(f"it captions {sanity.image.name} as {text!r}, not {sanity.caption!r}")
