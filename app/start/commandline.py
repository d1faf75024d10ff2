"""The command line: `blip-serve [COMMAND] [--SETTING VALUE]...`; every setting is a flag. Imports nothing slow."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from app import __version__
from app.settings import Settings, default_threads, variable
from app.start import bulk
from app.start.variables import closest

NO_FLAG = frozenset({"api_keys"})
COMMANDS = {
    "serve": "serve a profile over HTTP: what is done without a command",
    "fetch": "download the weights of a profile into HF_HOME, and end",
    "models": "list the profiles and the models of the catalog, and end",
    **bulk.COMMANDS,
}
USAGES = {
    "fetch": "[PROFILE] [--SETTING VALUE]...",
    **dict.fromkeys(bulk.COMMANDS, "PATH... [--OPTION VALUE]..."),
    "capfilt": "MANIFEST [--OPTION VALUE]...",
}
EPILOG = """\
Each setting is a flag, or else an environment variable: --port 9000, or BLIP_PORT=9000.
API keys are never a flag's value: they come from a file, or from BLIP_API_KEYS, comma separated."""
STDIN = "-"
WIDTH = 120  # columns, whatever the terminal has, so that the documentation shows the same
FORMATTER = partial(argparse.RawDescriptionHelpFormatter, width=WIDTH, max_help_position=36)


@dataclass(frozen=True, slots=True)
class Asked:
    command: str
    flags: dict[str, Any]  # by name; a setting's value is text, or a bool


class Parser(argparse.ArgumentParser):
    """Complains in one line, and says what was probably meant."""

    def __init__(self, **options: Any) -> None:
        options |= {"formatter_class": FORMATTER, "allow_abbrev": False, "argument_default": argparse.SUPPRESS}
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        print(f"blip-serve: {message.removeprefix('argument ')}; see {self.prog} --help", file=sys.stderr)  # noqa: T201
        sys.exit(2)

    def known_flags(self) -> set[str]:
        """Those of its commands too."""
        choices = (action.choices for action in self._actions if action.dest == "command")
        commands = (command for by_name in choices for command in dict(by_name or {}).values())
        return {*self._option_string_actions, *(flag for one in commands for flag in one.known_flags())}

    def refuse(self, words: Iterable[str], known: Collection[str]) -> None:
        """What is no option. Before anything is parsed: the value after it could be taken for a command, and told."""
        for word in words:
            flag = word.partition("=")[0]
            if flag in map(flag_of, NO_FLAG):
                self.error(f"{flag} is no option, as every user of a machine sees those: {flag}-file is")
            if flag.startswith("-") and flag not in (*known, STDIN):
                self.error(f"unknown option {flag}{_meant(flag, known)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.dest == "command" and value not in COMMANDS:
            hint = f"; a port is --port {value}" if value.isdigit() else _meant(value, COMMANDS)
            self.error(f"unknown command {value}{hint}; there are {', '.join(COMMANDS)}")
        super()._check_value(action, value)


def parse(arguments: Sequence[str]) -> Asked:
    """Ends the process for --help, --version and what cannot be parsed."""
    parser = make_parser()
    parser.refuse(arguments, parser.known_flags())
    options, more = parser.parse_known_args(arguments)
    flags = dict(vars(options))
    command = flags.pop("command", None) or "serve"
    if command in bulk.COMMANDS:  # argparse takes paths in one place alone, before or after options
        flags["paths"] += [word for word in more if not word.startswith("-") or word == STDIN]
        more = [word for word in more if word.startswith("-") and word != STDIN]
    if more:
        parser.error(f"{more[0].partition('=')[0]} is not for {command}")
    return Asked(command, flags)


def make_parser() -> Parser:
    parser = Parser(
        prog="blip-serve",
        usage="blip-serve [COMMAND] [--SETTING VALUE]...",
        description="Serve BLIP and BLIP-2 over HTTP, or ask them about folders of pictures.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"blip-serve {__version__}", help="print it, and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", prog="blip-serve")
    every = [name for name in Settings.model_fields if name not in NO_FLAG]
    settings = {"serve": every, "fetch": ["catalog", "log_level", "log_format"], "models": ["catalog"]}
    settings |= {name: [*bulk.SETTINGS] for name in bulk.COMMANDS}
    for name, told in COMMANDS.items():
        usage = f"blip-serve {name} {USAGES.get(name, '[--SETTING VALUE]...')}"
        epilog = bulk.EPILOG if name in bulk.COMMANDS else None
        described = f"{told[0].upper()}{told[1:]}."
        command = commands.add_parser(name, help=told, usage=usage, description=described, epilog=epilog)
        if name in bulk.COMMANDS:
            bulk.add_flags(command, name)
        if name == "fetch":
            command.add_argument(
                "profile", nargs="?", metavar="PROFILE", help="which profile [BLIP_PROFILE, or else demo]"
            )
        _add_settings(command, settings[name])
    _add_settings(parser, every)
    return parser


def _add_settings(parser: Parser, names: Sequence[str]) -> None:
    group = parser.add_argument_group("settings [default]")
    for name in names:
        field = Settings.model_fields[name]
        told = f"{field.description} [{default_of(field)}]".replace("%", "%%")
        if field.annotation is bool:
            group.add_argument(flag_of(name), action=argparse.BooleanOptionalAction, help=told)
        else:
            group.add_argument(flag_of(name), metavar=name.rpartition("_")[2].upper(), help=told)


def default_of(field: FieldInfo) -> str:
    """As people write it."""
    if field.default_factory is default_threads:
        return "the CPUs that the cgroup's quota allows"
    if field.annotation is bool:
        return "on" if field.default else "off"
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if isinstance(field.default, int) and field.default and field.default % size == 0:
            return f"{field.default}, {field.default // size} {unit}"
    return "-" if field.default in (None, (), "") else f"{field.default}"


def flag_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def explain(error: ValidationError, flags: Mapping[str, object] | None = None) -> str:
    """In one line, without the values: some are secret."""
    reasons = []
    for one in error.errors(include_input=False, include_url=False):
        names = [str(part) for part in one["loc"][:1]]
        told = [flag_of(name) if name in (flags or ()) else variable(name) for name in names]
        reasons.append(": ".join((*told, one["msg"].removeprefix("Value error, "))))
    return "; ".join(reasons)


def _meant(word: str, words: Iterable[str]) -> str:
    meant = closest(word, words)
    return f" (did you mean {meant}?)" if meant else ""
