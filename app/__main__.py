"""The console script: `blip-serve`, or `python -m app`. What is slow to import is imported when it is needed."""

from __future__ import annotations

import logging
import os
import sys

from pydantic import ValidationError

from app.logs import complain, configure_logging
from app.settings import Settings
from app.start import bulk
from app.start.commandline import Asked, explain, parse
from app.start.variables import MisspeltError, check_variables

WRONG_SETTING = 2

log = logging.getLogger("blip")


def main() -> int:
    """Returns the exit code: 2 for wrong settings; 1 for what cannot be had here: a port, a device, weights."""
    asked = parse(sys.argv[1:])
    try:
        unknown = check_variables(os.environ)
        if asked.command in bulk.COMMANDS:
            return _ask(asked)
        settings = Settings(**asked.flags)  # text, as in variables
    except (MisspeltError, ValidationError) as error:
        complain(explain(error, asked.flags) if isinstance(error, ValidationError) else error)
        return WRONG_SETTING
    configure_logging(settings)
    if unknown:
        log.warning("no settings of this service, so ignored: %s", ", ".join(sorted(unknown)))
    if asked.command == "serve" and "BLIP_API_KEY" in os.environ and not settings.api_keys:
        log.warning("BLIP_API_KEY is for clients: this service asks nobody for a key, as BLIP_API_KEYS is not set")
    try:
        return {"serve": _serve, "fetch": _fetch, "models": _models}[asked.command](settings)
    except RuntimeError as error:
        return complain(error)


def _serve(settings: Settings) -> int:
    """What must fail fails before the slow imports."""
    from app.start.listener import listen
    from app.start.listing import check_profile
    from app.start.preflight import check_device

    check_device(settings.device)
    check_profile(settings)
    sockets = listen(settings.host, settings.port)
    from app.server import serve

    return serve(settings, sockets)


def _ask(asked: Asked) -> int:
    """About many pictures."""
    from app.bulk.command import main as ask

    return ask(asked.command, asked.flags)


def _fetch(settings: Settings) -> int:
    """Download what a profile needs and is not here yet."""
    from app.main import fetch_weights

    folders = fetch_weights(settings)
    for checkpoint, folder in folders.items():
        print(f"{checkpoint} is in {folder}")  # noqa: T201
    if not folders:
        print(f"{settings.profile} needs nothing from the hub")  # noqa: T201
    return 0


def _models(settings: Settings) -> int:
    from app.start.listing import list_models

    print(list_models(settings))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
