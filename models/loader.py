"""From a profile to served models: memory check, weights, warm-up and sanity checks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from PIL import Image

from models.base import Checkpoint, Item, ModelRunner, Op, ServedModel, Task
from models.catalog import CatalogError, CheckpointEntry, ModelEntry, Sanity, read_catalog
from models.checkpoint import CheckpointPlan, fetch, how_to_compute, kept_bytes, naming, plan_checkpoints
from models.device import choose_device, free_bytes, has_onednn, tensors_apart
from models.families import FAMILIES
from models.framing import Fit
from models.inputs import (
    CaptionInput,
    DetectInput,
    ExampleInput,
    GenerationSettings,
    ImageEmbeddingInput,
    ImageInput,
    Input,
    LikelihoodInput,
    LocalizeInput,
    PairInput,
    QuestionInput,
    RankInput,
    SegmentInput,
    TextInput,
)
from models.layers.kernels import AUTO, Kernels
from models.layers.linear import PackedLinear, kernels_of
from models.outputs import Generated, Output, Video, is_finite
from models.runners.tower import TowerRunner
from models.weights import CheckpointError

log = logging.getLogger("blip.loader")

MEMORY_MARGIN = 1.15  # memory that loading needs at its peak, relative to the weights
WARM_UP: dict[Task, tuple[Input, ...]] = {
    Task.CAPTION: (LikelihoodInput("a picture"), CaptionInput(settings=GenerationSettings(max_new_tokens=2))),
    Task.VQA: (
        QuestionInput("what is it?", settings=GenerationSettings(max_new_tokens=2)),
        RankInput("is it?", ("yes", "no"), 2),
    ),
    Task.MATCH: (PairInput("a picture"), TextInput("a picture"), ImageEmbeddingInput()),
    Task.LOCALIZE: (LocalizeInput("a picture"),),
    Task.SEGMENT: (SegmentInput("a picture"),),
    Task.DETECT: (DetectInput("a picture"), ExampleInput()),
}
HEAD_OF: dict[type[Input], str] = {PairInput: "itm", TextInput: "itc", ImageEmbeddingInput: "itc"}


def load(
    profile: str,
    *,
    catalog: Path | None,
    device: str,
    dtype: str,
    threads: int,
    compile_batches: int = 0,
    kernels: str = AUTO,
    int8_head: bool = False,
) -> list[ServedModel]:
    """Load every checkpoint of a profile once, check it and warm it up.

    `catalog`: the operator's own; None: only the packaged one. `device`: auto, cpu, cuda, mps. `dtype`: auto, fp32,
    bf16, fp16, int8. `compile_batches`: the largest batch to compile the towers for, in pictures; 0: do not compile.
    `kernels`: the name of one for matrix products on CPUs, where it can be; auto: the fastest. `int8_head`:
    the projection to the vocabulary in int8.

    Raises CatalogError, CheckpointError and DeviceError."""
    torch.set_num_threads(threads)
    # fp32 is fp32: cuDNN's default for the patches' convolution is TF32, which has 10 bits.
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    place = choose_device(device)
    serving, products = how_to_compute(dtype, place)
    entries = _entries(profile, catalog)
    plans = plan_checkpoints(entries, serving, products, Kernels(kernels), int8_head=int8_head)
    every = {plan for model in plans.values() for plan in model.values()}
    if any(plan.uses_int8 or plan.writes_in_int8 for plan in every):
        if place.type != "cpu":
            means = "choose bf16 or fp16" if any(plan.uses_int8 for plan in every) else "start without BLIP_INT8_HEAD"
            raise CheckpointError(f"int8 is for CPUs; on {place} {means}")
        if not has_onednn():
            raise CheckpointError("int8 needs a build of torch with oneDNN")
    if compile_batches and products is not PackedLinear:
        raise CheckpointError(f"{dtype} products cannot be compiled: start without BLIP_COMPILE")
    with tensors_apart():
        _check_memory(every, place)
        loader = _Loader(place, compile_batches)
        return [
            ServedModel(name, entry.family, loader.checkpoints(plans[name], entry.sanity), entry.note, entry.template)
            for name, entry in entries.items()
        ]


def fetch_profile(profile: str, *, catalog: Path | None) -> dict[CheckpointEntry, Path]:
    """The folder of each of the profile's checkpoints that come from the hub, downloaded if it is not here yet.

    Raises CatalogError and CheckpointError."""
    folders: dict[CheckpointEntry, Path] = {}
    for model in _entries(profile, catalog).values():
        for entry in model.checkpoints.values():
            if entry not in folders and not Path(entry.checkpoint).is_absolute():
                with naming(entry):
                    folders[entry] = fetch(entry, FAMILIES[model.family])
    return folders


def _entries(profile: str, catalog: Path | None) -> dict[str, ModelEntry]:
    """The models of a profile by name. Raises CatalogError, also for what only a model's family can tell."""
    entries = read_catalog(catalog).profile(profile)
    for name, entry in entries.items():
        has = FAMILIES[entry.family].networks.ARCHITECTURES
        if lacking := [task for task in entry.checkpoints if task not in has]:
            reason = f"{entry.family} has no {lacking[0]}, only {', '.join(has)}"
            raise CatalogError(f"the catalog is wrong at models.{name}: {reason}")
        if entry.template is not None and not FAMILIES[entry.family].takes_template:
            reason = f"template is not for {entry.family}, whose questions are asked as they are"
            raise CatalogError(f"the catalog is wrong at models.{name}: {reason}")
    return entries


class _Loader:
    """Loads each checkpoint and each tower once."""

    def __init__(self, device: torch.device, compile_batches: int) -> None:
        self._device = device
        self._compile_batches = compile_batches
        self._towers: dict[str, TowerRunner] = {}
        self._loaded: dict[CheckpointPlan, Checkpoint] = {}
        self._warm: set[tuple[CheckpointPlan, Task]] = set()
        self._units: set[str] = set()

    def checkpoints(self, plans: Mapping[Task, CheckpointPlan], sanity: Sanity | None) -> dict[Task, Checkpoint]:
        checkpoints = {task: self._checkpoint(plan, task) for task, plan in plans.items()}
        if sanity is not None:
            with naming(plans[Task.CAPTION].entry):
                _check_caption(checkpoints[Task.CAPTION], sanity)
        if Task.MATCH in checkpoints:
            heads = checkpoints[Task.MATCH].heads.capabilities.heads
            if "itc" in heads:
                checkpoints[Task.EMBED] = checkpoints[Task.MATCH]
            if "itm" in heads and Task.CAPTION in checkpoints:
                checkpoints[Task.CAPFILT] = checkpoints[Task.MATCH]  # the filter; the captioner is its own task's
            if checkpoints[Task.MATCH].heads.capabilities.localizing is not None:
                checkpoints[Task.LOCALIZE] = self._checkpoint(plans[Task.MATCH], Task.LOCALIZE)
        return checkpoints

    def _checkpoint(self, plan: CheckpointPlan, task: Task) -> Checkpoint:
        with naming(plan.entry):
            if plan not in self._loaded:
                self._loaded[plan] = self._load(plan)
            if (plan, task) not in self._warm:
                _warm_up(self._loaded[plan], _warm_up_requests(self._loaded[plan], task))
                self._warm.add((plan, task))
        return self._loaded[plan]

    def _load(self, plan: CheckpointPlan) -> Checkpoint:
        tower = self._tower(plan)
        unit = self._new_unit(plan.entry.checkpoint)
        network = plan.load_network(self._device)
        heads = plan.make_runner(unit, network, self._device)
        own = heads.capabilities
        temperature = plan.entry.temperature or own.logit_scale or plan.temperature
        log.info("loaded %s, %.1f MB beside %s", unit, plan.network_bytes / 1e6, tower.unit)
        if kernels := kernels_of(tower.module, network):
            log.info("kernels of %s: %s", unit, ", ".join(f"{what} {name}" for what, name in kernels.items()))
        return Checkpoint(
            name=unit,
            revision=plan.entry.revision,
            tower=tower,
            heads=heads,
            preprocessing=plan.preprocessing,
            dtype=plan.dtype_name,
            device=str(self._device),
            temperature=temperature if "itc" in own.heads else None,
            kernels=kernels,
        )

    def _tower(self, plan: CheckpointPlan) -> TowerRunner:
        """Loaded only if no tower has the same digest, so that there is never a second copy in memory."""
        digest = plan.tower_digest
        if digest not in self._towers:
            unit = f"tower-{digest[:8]}"
            # Pictures of every shape would each be compiled for.
            to_compile = self._compile_batches > 0 and plan.preprocessing.framing.fit is not Fit.WHOLE
            tower = TowerRunner(unit, plan.load_tower(self._device, to_compile=to_compile), self._device)
            log.info("loaded %s, %.1f MB", unit, plan.tower_bytes / 1e6)
            if to_compile:
                _compile(tower, self._compile_batches, plan.preprocessing.image_size)
            self._towers[digest] = tower
        return self._towers[digest]

    def _new_unit(self, checkpoint: str) -> str:
        """The last two parts of the checkpoint's name, numbered if that is taken."""
        short = unit = "/".join(Path(checkpoint).parts[-2:])
        number = 1
        while unit in self._units:
            number += 1
            unit = f"{short}#{number}"
        self._units.add(unit)
        return unit


def _compile(tower: TowerRunner, max_batch_size: int, image_size: int) -> None:
    """Raises CheckpointError if that fails, for example without a C++ compiler."""
    log.info("compiling %s", tower.unit)
    try:
        tower.compile(max_batch_size, image_size)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"the tower cannot be compiled, start without BLIP_COMPILE: {reason}") from error


def _check_memory(plans: Set[CheckpointPlan], device: torch.device) -> None:
    """Raises CheckpointError if the weights will not fit into the device's free memory."""
    needed = kept_bytes(plans) * MEMORY_MARGIN
    available = free_bytes(device)
    if needed > available:
        raise CheckpointError(f"the weights need {needed / 1e9:.1f} GB on {device}, {available / 1e9:.1f} GB are free")


def _answers(checkpoint: Checkpoint, image: Image.Image, requests: tuple[Input, ...]) -> Iterator[Output]:
    """The image's features, and then an answer to each request about it."""
    encode = checkpoint.tower.prepare(ImageInput(image, checkpoint.preprocessing))
    (features,) = checkpoint.tower.encode([encode])
    yield features
    if (number := checkpoint.heads.capabilities.num_images) > 1:
        features = Video((features,) * number)
    for request in requests:
        item = replace(checkpoint.heads.prepare(request), features=features)
        yield _run(checkpoint.heads, item)


def _run(runner: ModelRunner, item: Item) -> Output:
    if item.op is Op.SCORE:
        return runner.score([item])[0]
    if item.op is Op.LOCALIZE:
        return runner.localize([item])[0]
    generation = runner.generate([item])
    while True:
        for _, generated in generation.step():
            return generated


def _warm_up_requests(checkpoint: Checkpoint, task: Task) -> tuple[Input, ...]:
    """Without those of a head that it does not have."""
    own = checkpoint.heads.capabilities
    if task is Task.VQA and own.answers:
        return (RankInput("is it?", (), 1),)
    return tuple(one for one in WARM_UP[task] if HEAD_OF.get(type(one)) in (None, *own.heads))


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
