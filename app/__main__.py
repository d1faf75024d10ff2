"""The console script: `blip-serve`, or `python -m app`."""

from __future__ import annotations

import argparse
import sys

from pydantic import ValidationError

from app.server import serve
from app.settings import Settings


def main() -> int:
    argparse.ArgumentParser(
        prog="blip-serve",
        description="Serve BLIP over HTTP. The settings are environment variables: see below.",
        epilog=describe_settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    try:
        settings = Settings()
    except ValidationError as error:
        print(f"blip-serve: {explain(error)}", file=sys.stderr)  # noqa: T201
        return 2
    return serve(settings)


def describe_settings() -> str:
    lines = ["settings [default]:"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        shown = "-" if default in (None, ()) else default
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
