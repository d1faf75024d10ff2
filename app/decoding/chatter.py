"""What decoders write to stderr: libtiff, codecs, the interpreter. A few lines of it go to the log."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time

MOST_LINES = 10  # in so many seconds:
PERIOD_SECONDS = 60.0
MOST_CHARS = 200
_PATH = re.compile(r"\S*/\S+")
_UNPRINTABLE = re.compile(r"[^ -~]")
log = logging.getLogger("blip.decoding")


class Allowance:
    """So many lines in each period; the others are counted."""

    def __init__(self, most: int = MOST_LINES, period_seconds: float = PERIOD_SECONDS) -> None:
        self._most = most
        self._period_seconds = period_seconds
        self._began = -period_seconds
        self._taken = 0
        self._dropped = 0

    def take(self, now: float) -> int | None:
        """The number of lines that were dropped before this one; None: it is dropped too."""
        if now - self._began >= self._period_seconds:
            self._began, self._taken = now, 0
        if self._taken == self._most:
            self._dropped += 1
            return None
        self._taken += 1
        dropped, self._dropped = self._dropped, 0
        return dropped


class Chatter(asyncio.Protocol):
    """The end of a pipe that all decoders write to."""

    def __init__(self) -> None:
        self._allowance = Allowance()
        self._rest = b""
        reading, self.descriptor = os.pipe()
        self._pipe = open(reading, "rb", 0)  # noqa: PTH123, SIM115
        self._transport: asyncio.BaseTransport | None = None

    async def start(self) -> None:
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: self, self._pipe)

    def close(self) -> None:
        os.close(self.descriptor)
        if self._transport is not None:
            self._transport.close()
        else:
            self._pipe.close()

    def data_received(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:MOST_CHARS]
        for line in lines:
            if line and (dropped := self._allowance.take(time.monotonic())) is not None:
                log.warning("a decoder says: %s", cleaned(line), extra={"fields": {"lines_dropped": dropped}})


def cleaned(line: bytes) -> str:
    """Without paths, control characters, or more than a log needs."""
    text = line[: 4 * MOST_CHARS].decode("ascii", "replace")
    return _UNPRINTABLE.sub("?", _PATH.sub("(path)", text))[:MOST_CHARS]
