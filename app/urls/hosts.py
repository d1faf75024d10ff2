"""Which hosts and ports a URL may name. Names only: what they lead to is looked up, and checked, when it is dialled."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from app.settings import Settings
from app.urls.addresses import may_be_dialled, parsed

PORTS = (80, 443)
MOST_HOST_CHARS = 253
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
# What the C library takes for an address though it is not written as one: 127.1, 2130706433, 0x7f.1 (WHATWG URL, 3.5).
_ENDS_IN_A_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)\.?")


@dataclass(frozen=True, slots=True)
class Entry:
    """Of an operator's list: `name`, `*.name`, with `:port` or not; see `Settings`."""

    name: str
    ports: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> Entry:
        host, colon, port = text.rpartition(":")
        if not colon or port.endswith("]"):
            host, port = text, ""
        return cls(host.strip("[]"), (int(port),) if port else PORTS)

    def covers(self, host: str, port: int) -> bool:
        if port not in self.ports:
            return False
        return host.endswith(self.name[1:]) if self.name.startswith("*.") else host == self.name


class Hosts:
    def __init__(self, settings: Settings) -> None:
        self._any_public = settings.image_urls == "public"
        self._listed = [Entry.of(one) for one in settings.image_url_hosts]
        self._private = [Entry.of(one) for one in settings.image_url_private_hosts]

    def may_be_private(self, host: str, port: int) -> bool:
        return _covered(self._private, host, port)

    def why_not(self, host: str, port: int) -> str | None:
        """For the log; None: it may be asked for. `host`: as httpx gives it, in lower case, IPv6 without brackets."""
        private = self.may_be_private(host, port)
        if not (private or _covered(self._listed, host, port) or (self._any_public and port in PORTS)):
            return "the host or its port is not allowed"
        if parsed(host) is not None:
            return None if may_be_dialled(host, may_be_private=private) else "the address is not allowed"
        if len(host) > MOST_HOST_CHARS or not _NAME.fullmatch(host):
            return "the host is not a name"
        return "the host is a number" if _ENDS_IN_A_NUMBER.fullmatch(host) else None


def _covered(entries: Iterable[Entry], host: str, port: int) -> bool:
    return any(entry.covers(host.rstrip("."), port) for entry in entries)
