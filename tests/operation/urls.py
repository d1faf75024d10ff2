"""The real process in the network of tests/app/urls, where names and addresses lead to the test's own hosts.

`python -m tests.operation.urls PLAIN TLS SECRET` serves, with the ports of those."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from app.__main__ import main
from bench.service import RunningService, free_port, running
from tests.app.urls.host import TLS, Host, host_in_thread
from tests.app.urls.network import Network, installed


@dataclass(slots=True)
class Hosts:
    plain: Host
    tls: Host
    secret: Host

    @property
    def ports(self) -> list[str]:
        return [str(one.port) for one in (self.plain, self.tls, self.secret)]


@contextmanager
def hosts() -> Iterator[Hosts]:
    with ExitStack() as stack:
        enter = stack.enter_context
        yield Hosts(enter(host_in_thread()), enter(host_in_thread(tls=True)), enter(host_in_thread()))


@contextmanager
def serving(hosts: Hosts, port: int | None = None, **settings: object) -> Iterator[RunningService]:
    """The demo, ready, with images from any public address."""
    port = port or free_port()
    own = {"host": "127.0.0.1", "port": port, "log_level": "error", "image_urls": "public"} | settings
    environment = {f"BLIP_{name.upper()}": str(value) for name, value in own.items()}
    environment["SSL_CERT_FILE"] = str(TLS / "ca.pem")
    command = [sys.executable, "-m", "tests.operation.urls", *hosts.ports]
    with running(command, port, "/health/ready", environment) as service:
        yield service


if __name__ == "__main__":
    plain, tls, secret = map(partial(int, base=10), sys.argv[1:])
    sys.argv[1:] = []
    with installed(Network(plain, tls, secret)):
        sys.exit(main())
