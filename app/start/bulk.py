"""The flags of the commands that ask about many pictures, and what they mean together. Imports nothing slow."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

COMMANDS = {
    "caption": "write a caption for each picture of files and folders",
    "vqa": "ask questions about each picture",
    "match": "tell how well texts fit each picture",
    "embed": "write the embedding of each picture to one file",
    "capfilt": "keep the texts of each picture that fit it, as in BLIP's paper",
}
EPILOG = """\
Without --url, or BLIP_URL, the service runs in this process, with the settings of `blip-serve serve`: the flags above,
or BLIP_* variables. With one, its key is BLIP_API_KEY.

exit codes: 0 all pictures are done, 1 some failed, 2 the command is wrong, 130 interrupted: what was in flight is
written"""
SETTINGS = (
    "profile",
    "catalog",
    "device",
    "dtype",
    "int8_head",
    "compile",
    "kernels",
    "threads",
    "max_batch_size",
    "log_level",
)
TEXTS, GENERATED, PICTURES = ("caption", "vqa"), ("caption", "vqa"), ("caption", "vqa", "match", "embed")
EVERY = tuple(COMMANDS)
FORMATS = {
    "caption": ("terminal", "txt", "jsonl", "csv", "imagefolder"),
    "vqa": ("terminal", "txt", "jsonl", "csv", "imagefolder"),
    "match": ("terminal", "jsonl", "csv"),
    "embed": ("jsonl", "npz", "parquet"),
    "capfilt": ("jsonl",),
}
MOST_IN_FLIGHT = 64
RETRIES = 5


class UsageError(ValueError):
    """Flags that do not go together, or with what is there; the message is one line."""


@dataclass(frozen=True, slots=True)
class Flag:
    commands: tuple[str, ...]
    names: tuple[str, ...]
    told: str
    shown: str | None = None  # of its value; None: it is a switch
    kind: type = str
    choices: tuple[str, ...] | None = None
    several: bool = False
    asked: bool = False  # a field of the request


def _asked(commands: tuple[str, ...], name: str, kind: type, told: str, **more: Any) -> Flag:
    shown = None if kind is bool else more.pop("shown", name.rpartition("-")[2].upper())
    return Flag(commands, (f"--{name}",), told, shown, kind, asked=True, **more)


SOURCE = "which pictures"
FLAGS: Mapping[str, tuple[Flag, ...]] = {
    SOURCE: (
        Flag(PICTURES, ("-r", "--recursive"), "folders with all that is below them"),
        Flag(
            PICTURES,
            ("--ext",),
            "in folders, only files with these endings, comma separated [those of all formats that the service reads]",
            "LIST",
        ),
        Flag(
            EVERY,
            ("--no-resize",),
            "send pictures above the service's limits as they are, to be refused [made smaller]",
        ),
    ),
    "what is asked": (
        _asked(EVERY, "model", str, "a served model [the first one with the task]"),
        Flag(("caption",), ("--question",), "write the answer to this, in place of a caption", "TEXT"),
        Flag(("vqa",), ("--question",), "repeat it for more", "TEXT", several=True),
        Flag(("match",), ("--text",), "repeat it for more", "TEXT", several=True),
        _asked(
            ("match",), "head", str, "which score: itm, itc, both or lm [both]", choices=("itm", "itc", "both", "lm")
        ),
        _asked(("embed",), "pooling", str, "of BLIP-2's vectors: none or mean [none]", choices=("none", "mean")),
        _asked(("caption",), "prompt", str, "how captions begin [the authors']", shown="TEXT"),
        _asked(("caption",), "num-captions", int, "of each picture, with alternatives [1]", shown="N"),
        _asked(("capfilt",), "num-captions", int, "synthetic captions of each picture [1]", shown="N"),
        _asked(("capfilt",), "threshold", float, "the least ITM probability of a text that is kept [0.5]", shown="X"),
        _asked(GENERATED, "num-beams", int, "[the authors']", shown="N"),
        _asked(GENERATED, "max-new-tokens", int, "[the authors']", shown="N"),
        _asked(GENERATED, "min-new-tokens", int, "[the authors']", shown="N"),
        _asked(GENERATED, "sample", bool, "draw tokens in place of beam search"),
        _asked(GENERATED, "top-p", float, "with --sample: the probability that is kept [0.9]", shown="P"),
        _asked(GENERATED, "temperature", float, "with --sample [1]", shown="T"),
        _asked((*GENERATED, "capfilt"), "seed", int, "makes what is drawn repeatable", shown="N"),
    ),
    "what is written": (
        Flag(EVERY, ("--output-format",), "", "FORMAT"),
        Flag(EVERY, ("-o", "--output"), "where jsonl, csv, imagefolder, npz and parquet go", "FILE"),
        Flag(TEXTS, ("--caption-extension",), "of txt [.txt]", "EXT"),
        Flag(TEXTS, ("--keep-ext",), "a.jpg.txt in place of a.txt, for folders that have a.png too"),
        Flag(TEXTS, ("--prefix",), "before each text", "TEXT"),
        Flag(TEXTS, ("--suffix",), "after each text", "TEXT"),
        Flag(
            EVERY,
            ("--existing",),
            "what is done already: skip, overwrite, or for txt append or prepend to it [skip]",
            "WHAT",
            choices=("skip", "overwrite", "append", "prepend"),
        ),
        Flag(
            TEXTS, ("--min-confidence",), "what is less sure is not written, but listed with the failures", "X", float
        ),
        Flag((*TEXTS, "match"), ("--json",), "on the terminal, one JSON object a line"),
        Flag(EVERY, ("--failures",), "where what failed is listed [failures.jsonl beside the output, or here]", "FILE"),
    ),
    "how": (
        Flag(EVERY, ("--url",), "a running service [BLIP_URL; else one in this process]", "URL"),
        Flag(
            EVERY,
            ("--concurrency",),
            f"the most requests at a time; fewer while it is full [{MOST_IN_FLIGHT}]",
            "N",
            int,
        ),
        Flag(
            EVERY, ("--retries",), f"of a request that the service is too full for, or not there [{RETRIES}]", "N", int
        ),
        Flag(EVERY, ("--fail-fast",), "end with the first picture that fails"),
        Flag(EVERY, ("--dry-run",), "print which pictures would be asked about, and end"),
        Flag(EVERY, ("-q", "--quiet"), "no progress, and no line at the end"),
    ),
}


@dataclass(frozen=True, slots=True)
class Options:
    command: str
    paths: tuple[str, ...]
    recursive: bool = False
    ext: str | None = None
    no_resize: bool = False
    question: str | list[str] | None = None
    text: list[str] | None = None
    output_format: str | None = None
    output: str | None = None
    caption_extension: str = ".txt"
    keep_ext: bool = False
    prefix: str = ""
    suffix: str = ""
    existing: Literal["skip", "overwrite", "append", "prepend"] = "skip"
    min_confidence: float | None = None
    json: bool = False
    failures: str | None = None
    url: str | None = None
    concurrency: int = MOST_IN_FLIGHT
    retries: int = RETRIES
    fail_fast: bool = False
    dry_run: bool = False
    quiet: bool = False
    asked: Mapping[str, Any] = field(default_factory=dict)  # fields of the request
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the service in this process


def add_flags(parser: argparse.ArgumentParser, command: str) -> None:
    if command == "capfilt":
        told = 'JSON lines, {"path": ..., "texts": [...]} each, with paths relative to the file; -: from stdin'
        parser.add_argument("paths", nargs=1, metavar="MANIFEST", help=told)
    else:
        told = "a file, a folder, a pattern ('a/**/*.jpg'), or - for a list of paths on stdin, one a line"
        parser.add_argument("paths", nargs="+", metavar="PATH", help=told)
    for title, flags in FLAGS.items():
        group = parser.add_argument_group(title if title != "how" else "how it is done")
        for flag in flags:
            if command in flag.commands:
                _add(group, flag, command)


def _add(group: argparse._ArgumentGroup, flag: Flag, command: str) -> None:
    told = flag.told
    if flag.names == ("--output-format",):
        formats = FORMATS[command]
        default = "terminal for files, txt for folders" if "txt" in formats else formats[0]
        told = (
            f"{', '.join(formats[:-1])} or {formats[-1]} [{default}; or as --output ends]" if formats[1:] else "jsonl"
        )
        flag = Flag(flag.commands, flag.names, told, flag.shown, choices=formats)
    told = told.replace("%", "%%")
    if flag.shown is None:
        group.add_argument(*flag.names, action="store_true", help=told)
        return
    action = "append" if flag.several else "store"
    required = flag.several
    group.add_argument(
        *flag.names,
        action=action,
        metavar=flag.shown,
        type=flag.kind,
        choices=flag.choices,
        help=told,
        required=required,
    )


def options_of(command: str, flags: Mapping[str, Any]) -> Options:
    """Raises UsageError."""
    asked = {flag.names[-1][2:].replace("-", "_") for group in FLAGS.values() for flag in group if flag.asked}
    known = {one.name for one in fields(Options)}
    options = Options(
        command,
        tuple(flags["paths"]),
        asked={name: value for name, value in flags.items() if name in asked},
        settings={name: value for name, value in flags.items() if name in SETTINGS},
        **{name: value for name, value in flags.items() if name in known - {"paths"}},
    )
    if options.output == "-":  # stdout
        options = replace(options, output=None)
    _check(options)
    return options


def _check(options: Options) -> None:
    if options.url and options.settings:
        flag = next(iter(options.settings)).replace("_", "-")
        raise UsageError(f"--{flag} is for a service in this process, and --url names another one")
    if options.concurrency < 1:
        raise UsageError("--concurrency: at least 1")
    if options.retries < 0:
        raise UsageError("--retries: at least 0")
    if options.min_confidence is not None and not 0 <= options.min_confidence <= 1:
        raise UsageError("--min-confidence: from 0 to 1")
    if options.command == "caption" and options.question is not None and {"prompt", "num_captions"} & {*options.asked}:
        raise UsageError("--question asks for an answer: --prompt and --num-captions are for captions")
    if options.json and options.output:
        raise UsageError("--json is for the terminal: --output-format jsonl writes the same to --output")
