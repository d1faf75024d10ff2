"""Where the service listens: its sockets, open before anything slow is done, and the address to open."""

from __future__ import annotations

import errno
import os
import socket

BACKLOG = 2048
NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class ListenError(RuntimeError):
    """The message is one line for the operator."""


def listen(host: str, port: int) -> list[socket.socket]:
    """On every address that the name has, at one port; `::` is every address of this machine, IPv4 too. Raises
    ListenError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ListenError(f"cannot listen on {host}: no such host or address") from error
    sockets: list[socket.socket] = []
    failure: OSError | None = None  # only some of them are one: a name may have addresses that this machine has not
    for family, _, _, _, (address, *_) in dict.fromkeys(found):
        try:
            sockets.append(_open(family, str(address), sockets[0].getsockname()[1] if sockets else port))
        except OSError as error:
            failure = error
            if error.errno not in NOT_HERE:
                break
    if failure and (not sockets or failure.errno not in NOT_HERE):
        for one in sockets:
            one.close()
        raise ListenError(_told(host, port, failure)) from failure
    return sockets


def _open(family: int, address: str, port: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would take a port from its owner
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
        opened.bind((address, port))
        opened.listen(BACKLOG)  # two may bind, but only one listens
    except OSError:
        opened.close()
        raise
    return opened


def _told(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use: choose another one with --port or BLIP_PORT (0: any free one)"
    if error.errno == errno.EACCES:
        return f"port {port} is for root alone: choose one from 1024 on"
    if error.errno in NOT_HERE:
        return f"cannot listen on {host}: this machine has no such address"
    return f"cannot listen on {host}, port {port}: {os.strerror(error.errno or 0)}"


def url_of(listener: socket.socket) -> str:
    """One that a browser on this machine can open."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
