"""The catalog: the models that can be served, where their checkpoints are, and the profiles that name them.

Read before anything is loaded, so it does not import torch."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from models.base import Task

PACKAGED = Path(__file__).with_name("catalog.toml")
HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")
# The keys of `models.families.FAMILIES`, which imports torch.
FamilyName = Literal[
    "blip",
    "blip2",
    "clip",
    "siglip",
    "align",
    "lit",
    "chinese_clip",
    "metaclip2",
    "clipseg",
    "owlvit",
    "owlv2",
    "vilt",
    "vilt-nlvr2",
]
WITHOUT_EMBEDDINGS: frozenset[FamilyName] = frozenset({"vilt"})  # of those that match: a test compares


class CatalogError(RuntimeError):
    """The catalog cannot be read or is wrong, or has no such profile; the message is one line for the operator."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CheckpointEntry(_Entry):
    """A hub repository at a revision, or a folder. Equal entries are loaded once, whichever tasks name them."""

    checkpoint: str = Field(min_length=1)
    revision: str | None = None
    # Only for a checkpoint with a language model:
    quantize: Literal["int8"] | None = None  # the language model's weights
    max_prompt_tokens: int | None = Field(None, ge=8)  # longer prompts are cut, in LAVIS at 32; None: never
    # Only for `match`: what cosines are multiplied by before a softmax over them. It is learned, as 1 / temp of the
    # authors' code, and their conversions for transformers drop it. None: that of config.json, where training began.
    temperature: float | None = Field(None, ge=1, le=1000)


class Sanity(_Entry):
    """A picture, and the caption that the model must give it when it is loaded."""

    image: Path
    caption: str


class ModelEntry(_Entry):
    """A served model, with at least one checkpoint. The one for `match` also serves embed, and, with one for `caption`,
    capfilt, if its family has the heads."""

    family: FamilyName
    caption: CheckpointEntry | None = None
    vqa: CheckpointEntry | None = None
    match: CheckpointEntry | None = None
    segment: CheckpointEntry | None = None
    detect: CheckpointEntry | None = None
    note: str | None = None  # what its users must know
    # For questions, with one "{}"; None: the authors'. Only for a family that takes one.
    template: Annotated[str, StringConstraints(strip_whitespace=True)] | None = None
    sanity: Sanity | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.checkpoints:
            raise ValueError("needs a checkpoint for caption, vqa, match, segment or detect")
        if self.sanity is not None and self.caption is None:
            raise ValueError("sanity needs a checkpoint for caption")
        if self.template is not None:
            self._check_template(self.template)
        return self

    def _check_template(self, template: str) -> None:
        if self.vqa is None:
            raise ValueError("template needs a checkpoint for vqa")
        if template.count("{}") != 1:
            raise ValueError(f"template {template!r} must hold exactly one {{}}, where the question goes")

    @property
    def checkpoints(self) -> dict[Task, CheckpointEntry]:
        slots = {
            Task.CAPTION: self.caption,
            Task.VQA: self.vqa,
            Task.MATCH: self.match,
            Task.SEGMENT: self.segment,
            Task.DETECT: self.detect,
        }
        return {task: entry for task, entry in slots.items() if entry is not None}


class Catalog(_Entry):
    profiles: dict[str, Annotated[list[str], Field(min_length=1)]] = {}
    models: dict[str, ModelEntry] = {}

    def profile(self, name: str) -> dict[str, ModelEntry]:
        """The models of a profile by name, in the profile's order. Raises CatalogError."""
        if name not in self.profiles:
            raise CatalogError(f"unknown profile {name!r}; there are: {', '.join(sorted(self.profiles))}")
        unknown = [model for model in self.profiles[name] if model not in self.models]
        if unknown:
            raise CatalogError(f"profile {name!r} names unknown models: {', '.join(unknown)}")
        for model in self.profiles[name]:
            self._check_checkpoints(model)
        return {model: self.models[model] for model in self.profiles[name]}

    def _check_checkpoints(self, model: str) -> None:
        """A folder that is there has become absolute; the rest is the hub's, if it can be."""
        for task, entry in self.models[model].checkpoints.items():
            if not Path(entry.checkpoint).is_dir() and not HUB_NAME.fullmatch(entry.checkpoint):
                reason = (
                    f"there is no folder {entry.checkpoint} (seen from the catalog), and the hub has OWNER/NAME only"
                )
                raise CatalogError(f"models.{model}.{task}: {reason}")


def read_catalog(own: Path | None = None) -> Catalog:
    """The packaged catalog, with the entries of the operator's `own` added or replacing those of the same name. Raises
    CatalogError."""
    catalog = _read(PACKAGED)
    if own is None:
        return catalog
    added = _read(own)
    return Catalog(profiles=catalog.profiles | added.profiles, models=catalog.models | added.models)


def _read(path: Path) -> Catalog:
    try:
        catalog = Catalog.model_validate(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CatalogError(f"cannot read the catalog {path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CatalogError(f"the catalog {path} is wrong at {place}: {first['msg']}") from error
    folder = path.resolve().parent
    models = {name: _anchored(entry, folder) for name, entry in catalog.models.items()}
    return catalog.model_copy(update={"models": models})


def _anchored(entry: ModelEntry, folder: Path) -> ModelEntry:
    """The entry with paths relative to the catalog's `folder` made absolute."""
    update: dict[str, object] = {
        task.value: slot.model_copy(update={"checkpoint": str(folder / slot.checkpoint)})
        for task, slot in entry.checkpoints.items()
        if (folder / slot.checkpoint).is_dir()
    }
    if entry.sanity is not None:
        update["sanity"] = entry.sanity.model_copy(update={"image": folder / entry.sanity.image})
    return entry.model_copy(update=update)
