"""What the catalog offers, without loading any of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from app.settings import Settings
from models.base import Task
from models.catalog import WITHOUT_EMBEDDINGS, Catalog, ModelEntry, read_catalog


def check_profile(settings: Settings) -> None:
    """Raises CatalogError, with one line for the operator."""
    read_catalog(settings.catalog).profile(settings.profile)


def list_models(settings: Settings) -> str:
    """The profiles with their models, and the models with their checkpoints. Raises CatalogError."""
    catalog = read_catalog(settings.catalog)
    profiles = [(name, ", ".join(models)) for name, models in catalog.profiles.items()]
    return "\n".join(
        (
            *_table(("PROFILE", "MODELS"), profiles),
            "",
            *_table(("MODEL", "FAMILY", "TASKS", "CHECKPOINT"), list(_rows(catalog))),
        )
    )


def _rows(catalog: Catalog) -> Iterator[tuple[str, ...]]:
    """One for each checkpoint of a model."""
    for name, model in catalog.models.items():
        for checkpoint, tasks in _tasks(model).items():
            yield name, model.family, ", ".join(tasks), _shown(checkpoint)


def _tasks(model: ModelEntry) -> dict[str, list[str]]:
    tasks: dict[str, list[str]] = {}
    for task, entry in model.checkpoints.items():
        more = [] if task is not Task.MATCH or model.family in WITHOUT_EMBEDDINGS else [Task.EMBED]
        filters = [Task.CAPFILT] if task is Task.MATCH and model.caption is not None else []
        tasks.setdefault(entry.checkpoint, []).extend([task, *more, *filters])
    return tasks


def _shown(checkpoint: str) -> str:
    """A folder from here, where it is below."""
    here = Path.cwd()
    return str(Path(checkpoint).relative_to(here)) if Path(checkpoint).is_relative_to(here) else checkpoint


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return [line.rstrip() for line in padded]
