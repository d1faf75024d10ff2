"""Which writer a command line means."""

from __future__ import annotations

import os
from collections.abc import Sequence

from app.bulk.failing import Failures, Listed, Told
from app.bulk.finding import EXTENSIONS
from app.bulk.progress import Progress
from app.bulk.writers.arrays import Arrays
from app.bulk.writers.lines import Csv, ImageFolder, JsonLines
from app.bulk.writers.sidecar import Sidecars
from app.bulk.writers.stream import Stream, alone, under_its_path
from app.bulk.writers.tables import Npz, Parquet
from app.bulk.writers.writer import Writer
from app.start.bulk import FORMATS, Options, UsageError

BY_ENDING = {".jsonl": "jsonl", ".csv": "csv", ".npz": "npz", ".parquet": "parquet"}
FAILURES = "failures.jsonl"


def format_of(options: Options) -> str:
    """Raises UsageError."""
    chosen = _chosen(options)
    if chosen not in FORMATS[options.command]:
        raise UsageError(f"{options.command} does not write {chosen}, but {', '.join(FORMATS[options.command])}")
    if options.output and chosen in ("terminal", "txt"):
        raise UsageError(f"--output is not for {chosen}, but for jsonl, csv, imagefolder, npz and parquet")
    if not options.output and chosen in ("npz", "parquet"):
        raise UsageError(f"{chosen} needs --output FILE.{chosen}")
    if options.existing in ("append", "prepend") and chosen != "txt":
        raise UsageError(f"--existing {options.existing} is for txt: {chosen} has a record for each picture")
    return chosen


def _chosen(options: Options) -> str:
    if options.json:
        return "jsonl"
    if options.output_format:
        return options.output_format
    if options.output:
        ending = os.path.splitext(options.output)[1].lower()
        if ending not in BY_ENDING:
            raise UsageError(f"--output {options.output}: --output-format says what it is to be")
        return BY_ENDING[ending]
    formats = FORMATS[options.command]
    if "txt" in formats and any(map(os.path.isdir, options.paths)):
        return "txt"
    return formats[0]


def writer_of(options: Options, chosen: str, columns: Sequence[str]) -> Writer:
    """Raises UsageError, OutputError."""
    overwrite = options.existing == "overwrite"
    match chosen:
        case "txt":
            return Sidecars(_extension(options.caption_extension), options.existing, options.keep_ext)
        case "terminal":
            single = len(options.paths) == 1 and os.path.isfile(options.paths[0])
            return Stream(alone if single else under_its_path)
        case "jsonl":
            lines = JsonLines(options.output or "-", overwrite=overwrite)
            return lines if options.output else Stream(lines.encoded)
        case "csv":
            table = Csv(options.output or "-", columns, overwrite=overwrite)
            return table if options.output else Stream(table.encoded, table.head())
        case "imagefolder":
            return ImageFolder(options.output or _metadata(options), overwrite=overwrite)
        case _:
            made = Npz() if chosen == "npz" else Parquet()
            return Arrays(str(options.output), made, overwrite=overwrite)


def _extension(extension: str) -> str:
    extension = f".{extension.removeprefix('.')}"
    if extension == "." or "/" in extension or extension[1:].lower() in EXTENSIONS:
        raise UsageError(f"--caption-extension: {extension} is none for a text")
    return extension


def _metadata(options: Options) -> str:
    if len(options.paths) == 1 and os.path.isdir(options.paths[0]):
        return os.path.join(options.paths[0], "metadata.jsonl")
    raise UsageError("imagefolder is for one folder, or needs --output FOLDER/metadata.jsonl")


def failures_of(options: Options, writer: Writer, progress: Progress) -> tuple[Failures, str]:
    """And where they are told."""
    if isinstance(writer, Stream) and not options.failures:
        return Told(progress.tell), "above"
    path = _failures(options)
    return Listed(path), path


def check_failures(options: Options) -> None:
    """The list of an earlier run is removed: it must be nothing else that is named. Raises UsageError."""
    for other in filter(None, (options.output, *options.paths)):
        if os.path.realpath(_failures(options)) == os.path.realpath(other):
            raise UsageError(f"{other} is where failures are listed: --failures FILE names another file")


def _failures(options: Options) -> str:
    return options.failures or os.path.join(os.path.dirname(options.output or ""), FAILURES)
