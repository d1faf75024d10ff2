"""The console script: `blip-serve`, or `python -m app`."""

from __future__ import annotations

import argparse
import sys

from pydantic import ValidationError

from app.logs import configure_logging
from app.main import fetch_weights
from app.server import complain, serve
from app.settings import Settings


def main() -> int:
    """Returns the exit code: 2 for wrong settings, 1 for what cannot be loaded or fetched."""
    options = _parser().parse_args()
    try:
        settings = Settings(**({"profile": options.profile} if options.profile else {}))
    except ValidationError as error:
        print(f"blip-serve: {explain(error)}", file=sys.stderr)  # noqa: T201
        return 2
    return serve(settings) if options.command is None else fetch(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="blip-serve",
        usage="blip-serve [-h] [COMMAND ...]",
        description="Serve BLIP over HTTP. The settings are environment variables: see below.",
        epilog=describe_settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(profile=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    fetching = commands.add_parser("fetch", help="download the weights of a profile into HF_HOME, and end")
    fetching.add_argument("profile", nargs="?", help="default: BLIP_PROFILE")
    return parser


def fetch(settings: Settings) -> int:
    """Download what a profile needs and is not here yet."""
    configure_logging(settings)
    try:
        folders = fetch_weights(settings)
    except RuntimeError as error:
        return complain(error)
    for checkpoint, folder in folders.items():
        print(f"{checkpoint} is in {folder}")  # noqa: T201
    if not folders:
        print(f"{settings.profile} needs nothing from the hub")  # noqa: T201
    return 0


def describe_settings() -> str:
    lines = ["settings [default]:"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        shown = "-" if default in (None, (), "") else default
        lines.append(f"  {variable(name):<32} {field.description} [{shown}]")
    return "\n".join(lines)


def explain(error: ValidationError) -> str:
    """In one line, without the values: some are secret."""
    reasons = [
        ": ".join((*(variable(str(part)) for part in one["loc"][:1]), one["msg"].removeprefix("Value error, ")))
        for one in error.errors(include_input=False, include_url=False)
    ]
    return "; ".join(reasons)


def variable(name: str) -> str:
    return f"BLIP_{name.upper()}"


if __name__ == "__main__":
    sys.exit(main())
