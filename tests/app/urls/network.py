"""A network in which names and addresses lead to servers of the test, and all else to its secret.

It takes the place of what the service calls outside of itself, getaddrinfo and httpcore's connect: all of the service's
own code is as it is."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpcore

PUBLIC, PUBLIC_6 = "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
Answers = list[list[str]]  # of the resolver: the first time, the second time, and from then on
NAMES: Mapping[str, Answers] = {
    "good.example": [[PUBLIC]],
    "both.example": [[PUBLIC_6, PUBLIC]],
    "other.example": [[PUBLIC]],  # of which the certificate is not
    "loopback.example": [["127.0.0.1"]],
    "inner.example": [["10.0.0.7"]],
    "inner6.example": [["fd00::7"]],
    "mapped.example": [["::ffff:10.0.0.7"]],
    "scoped.example": [["fe80::1%2"]],
    "metadata.example": [["169.254.169.254"]],
    "mixed.example": [[PUBLIC, "127.0.0.1"]],
    "mixed6.example": [[PUBLIC, "::1"]],
    "flipping.example": [[PUBLIC], ["127.0.0.1"]],
    "store.internal": [["10.0.0.9"]],
    "rebound.internal": [["169.254.169.254"]],
}


@dataclass(slots=True)
class Network:
    """`plain`, `tls`: ports of the good host. Whoever dials another address gets to the secret's."""

    plain: int
    tls: int
    secret: int
    names: Mapping[str, Answers] = field(default_factory=lambda: NAMES)
    asked: list[str] = field(default_factory=list)  # names that were looked up
    dialled: list[str] = field(default_factory=list)

    def look_up(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answers = self.names[host]
        answer = answers[min(self.asked.count(host), len(answers) - 1)]
        self.asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]

    def port_of(self, address: str, port: int) -> int:
        self.dialled.append(f"{address}:{port}")
        if address in (PUBLIC, PUBLIC_6):
            return self.tls if port == 443 else self.plain
        return self.secret


@contextmanager
def installed(network: Network) -> Iterator[Network]:
    """Numbers and the test's own names are the machine's resolver's."""
    look_up, dial = socket.getaddrinfo, httpcore.AnyIOBackend.connect_tcp

    def stub(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(host, str) and host.endswith((".example", ".internal", ".invalid")):
            return network.look_up(host, port)
        return look_up(host, port, *arguments, **options)

    async def connect(self: httpcore.AnyIOBackend, host: str, port: int, *arguments: Any, **options: Any) -> Any:
        return await dial(self, "127.0.0.1", network.port_of(host, port), *arguments, **options)

    socket.getaddrinfo = stub
    httpcore.AnyIOBackend.connect_tcp = connect  # type: ignore[method-assign]
    try:
        yield network
    finally:
        socket.getaddrinfo = look_up
        httpcore.AnyIOBackend.connect_tcp = dial  # type: ignore[method-assign]
