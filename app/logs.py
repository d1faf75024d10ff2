"""Logging to stderr, as text or as one JSON object a line. `extra={"fields": {...}}` adds fields to a record."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from app.settings import Settings


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "fields", {})


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        first, *rest = super().format(record).split("\n", 1)
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        return "\n".join((first + fields, *rest))


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"), "level": record.levelname.lower()}
        line |= {"logger": record.name, "message": record.getMessage()} | _fields(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(settings: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else text)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # not shown, so not looked up
    for name in ("PIL",):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # their messages on broken input quote what the client sent
    for name in ("asyncio", "filelock", "httpcore", "httpx", "httpx2", "urllib3", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)


def complain(error: Exception | str) -> int:
    """In one line, for the operator. Returns the exit code."""
    print("blip-serve:", " ".join(f"{error}".split()) or type(error).__name__, file=sys.stderr)  # noqa: T201
    return 1
