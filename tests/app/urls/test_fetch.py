"""Fetching, over real sockets in a network of the test: what is sent, what is kept, what is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from app.errors import (
    FetchError,
    ImageHostError,
    ImageUrlError,
    QueueFullError,
    TooManyBytesError,
    UnsupportedMediaError,
)
from app.http.ledger import Lease, Ledger
from app.metrics import Metrics
from app.settings import Settings
from app.urls.failures import NotFetchedError
from app.urls.fetch import ImageFetcher
from tests.app.support import RED, run, until
from tests.app.urls.host import TLS, Host, host
from tests.app.urls.network import PUBLIC, Network, installed

GOOD = "http://good.example/red.png"


def room(num_bytes: int = 2**30) -> Lease:
    return Lease(Ledger(num_bytes))


@dataclass(slots=True)
class Bench:
    fetcher: ImageFetcher
    plain: Host
    tls: Host
    secret: Host
    network: Network
    metrics: Metrics

    async def fetch(self, url: str) -> bytes:
        return await self.fetcher.fetch(url, room(), "test-1")

    def count(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("blip_image_fetches_total", {"result": result}) or 0.0


@asynccontextmanager
async def bench(**settings: Any) -> AsyncIterator[Bench]:
    async with host() as plain, host(tls=True) as tls, host() as secret:
        with installed(Network(plain.port, tls.port, secret.port)) as network:
            metrics = Metrics()
            fetcher = ImageFetcher(Settings(**({"image_urls": "public"} | settings)), metrics)
            yield Bench(fetcher, plain, tls, secret, network, metrics)


@pytest.fixture(autouse=True)
def _own_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "ca.pem"))


def fields(head: str) -> dict[str, str]:
    lines = [line.split(": ", 1) for line in head.strip().split("\r\n")[1:]]
    return {name.lower(): value for name, value in lines}


def test_what_is_sent() -> None:
    """Little, and nothing of anybody's: no cookie that came, no name of a user, no key."""

    async def test() -> None:
        async with bench() as b:
            assert [await b.fetch(GOOD) for _ in range(2)] == [RED, RED]
            assert await b.fetch("http://good.example/to?/stored%3Fa=b") == RED
            for head in b.plain.heads:
                sent = fields(head)
                assert set(sent) == {"host", "user-agent", "accept", "accept-encoding"}
                assert (sent["host"], sent["accept-encoding"]) == ("good.example", "identity")
            assert b.plain.heads[-1].startswith("GET /stored?a=b HTTP/1.1\r\n")
            assert b.count("ok") == 3

    run(test)


def test_a_name_is_looked_up_once_and_its_address_dialled() -> None:
    async def test() -> None:
        async with bench() as b:
            assert await b.fetch("http://flipping.example/once.png") == RED
            assert (b.network.asked, b.network.dialled) == (["flipping.example"], [f"{PUBLIC}:80"])
            with pytest.raises(ImageUrlError):
                await b.fetch("http://flipping.example/once.png")
            assert b.secret.num_connections == 0

    run(test)


def test_the_next_address_is_dialled_when_one_does_not_answer() -> None:
    async def test() -> None:
        async with bench() as b:
            answered = b.network.port_of
            nobody = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1")
            closed = nobody.sockets[0].getsockname()[1]
            nobody.close()
            await nobody.wait_closed()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Network, "port_of", lambda _, one, at: closed if ":" in one else answered(one, at))
                assert await b.fetch("http://both.example/red.png") == RED

    run(test)


def test_tls_is_for_the_name_and_no_connection_is_kept_for_another() -> None:
    """Both names lead to one address."""

    async def test() -> None:
        async with bench() as b:
            assert [await b.fetch("https://good.example/red.png") for _ in range(2)] == [RED, RED]
            assert b.tls.num_connections == 2
            with pytest.raises(ImageHostError):
                await b.fetch("https://other.example/red.png")
            with pytest.raises(ImageHostError):
                await b.fetch(f"https://{PUBLIC}/red.png")
            assert {fields(head)["host"] for head in b.tls.heads} == {"good.example"}

    run(test)


def test_the_environment_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def test() -> None:
        async with bench() as b:
            assert await b.fetch(GOOD) == RED
            assert await b.fetch("https://good.example/red.png") == RED

    run(test)


def test_a_proxy_looks_names_up() -> None:
    async def test() -> None:
        async with bench() as b:
            settings: dict[str, Any] = {"image_urls": "allowed", "image_url_hosts": "inner.example"}
            settings["image_url_proxy"] = f"http://good.example:{b.plain.port}"
            fetcher = ImageFetcher(Settings(**settings), b.metrics)
            assert await fetcher.fetch("http://inner.example/stored", room(), "test-1") == RED
            with pytest.raises(ImageUrlError):
                await fetcher.fetch(GOOD, room(), "test-1")
            assert fields(b.plain.heads[-1])["host"] == "inner.example"
            assert b.network.asked == []

    # The proxy's name is httpcore's to look up, as it is the operator's.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "port_of", lambda self, host, _: self.plain if host == "good.example" else self.secret)
        run(test)


def test_private_hosts_are_dialled_where_the_operator_said_so() -> None:
    async def test() -> None:
        options = {"image_url_private_hosts": "store.internal:9000,rebound.internal:9000"}
        async with bench(**options) as b:
            with pytest.raises(ImageUrlError):
                await b.fetch("http://store.internal/stored")
            with pytest.raises(ImageUrlError):
                await b.fetch("http://rebound.internal:9000/stored")
            assert b.secret.num_connections == 0
            assert await b.fetch("http://store.internal:9000/stored") == RED  # all that is private leads to the secret
            assert b.network.dialled == ["10.0.0.9:9000"]

    run(test)


@pytest.mark.parametrize("url", ["http://nothing.invalid/", "http://inner.example/", "https://mixed.example/"])
def test_a_name_that_is_refused_is_told_no_sooner_than_one_that_has_no_address(url: str) -> None:
    """A look-up may take as long as a connection: whatever it finds that is not allowed is told when that is over."""

    async def test() -> None:
        async with bench() as b:
            seen: list[float] = []
            with pytest.MonkeyPatch.context() as patch:

                async def note(seconds: float, *_: object) -> None:
                    seen.append(seconds)

                patch.setattr("app.urls.fetch.asyncio.sleep", note)
                with pytest.raises(ImageUrlError) as caught:
                    await b.fetch(url)
            [waited] = seen
            assert 0 < waited <= 3.0
            assert caught.value.detail == "The image's URL is not allowed, or leads nowhere."

    run(test)


def test_a_resolver_that_hangs_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with bench(image_url_timeout_seconds=0.2) as b:
            hung = asyncio.Event()
            loop = asyncio.get_running_loop()
            look_up = b.network.look_up

            def hang(_: Network, name: str, port: int) -> Any:
                if name == "inner.example":
                    asyncio.run_coroutine_threadsafe(hung.wait(), loop).result()
                return look_up(name, port)

            monkeypatch.setattr(Network, "look_up", hang)
            with pytest.raises(ImageUrlError):
                await b.fetch("http://inner.example/")
            hung.set()
            assert b.secret.num_connections == 0

    run(test)


def test_fetches_are_few_at_a_time_and_end_with_who_asked() -> None:
    async def test() -> None:
        async with bench() as b:
            fetches = [asyncio.create_task(b.fetch("http://good.example/silent")) for _ in range(20)]

            async def so_many() -> bool:
                return b.plain.open == 16

            await until(so_many)
            assert b.plain.num_connections == 16
            for fetch in fetches:
                fetch.cancel()
            await asyncio.gather(*fetches, return_exceptions=True)

            async def none() -> bool:
                return b.plain.open == 0

            await until(none)
            assert b.count("cancelled") == 20
            assert await b.fetch(GOOD) == RED

    run(test)


def test_who_leaves_while_a_connection_is_made_leaves_none_behind() -> None:
    """At any moment of it: a place that stayed taken would be missed for ever."""

    async def test() -> None:
        async with bench() as b:
            for turns in range(60):
                fetches = [asyncio.create_task(b.fetch("http://good.example/silent")) for _ in range(4)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for fetch in fetches:
                    fetch.cancel()
                await asyncio.gather(*fetches, return_exceptions=True)

            async def none() -> bool:
                return b.plain.open == 0

            await until(none)
            assert b.plain.num_connections > 4
            assert await b.fetch(GOOD) == RED

    run(test)


def test_what_comes_is_told_as_it_comes() -> None:
    async def test() -> None:
        async with bench() as b:
            held = room(300_000)
            with pytest.raises(TooManyBytesError):
                await b.fetcher.fetch("http://good.example/endless", held, "test-1")
            assert 200_000 < held.held <= 300_000

    run(test)


@pytest.mark.parametrize(
    ("path", "told"), [("missing", "host answered 404"), ("forbidden", "host answered 403"), ("broken", "500")]
)
def test_what_the_host_answered_is_told(path: str, told: str) -> None:
    async def test() -> None:
        async with bench() as b:
            with pytest.raises(ImageHostError, match=told):
                await b.fetch(f"http://good.example/{path}")
            assert b.count("failed") == 1

    run(test)


def test_nothing_is_begun_for_which_there_is_no_time() -> None:
    """A hop whose look-up might be cut off would tell of its name by which error comes."""

    async def test() -> None:
        async with bench(image_url_timeout_seconds=0.2) as b:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("app.urls.fetch.CONNECT_SECONDS", 3.0)
                b.fetcher._connect_seconds = 3.0
                with pytest.raises(QueueFullError):
                    await b.fetch("http://inner.example/")
            assert b.network.asked == []

    run(test)


def test_the_log_tells_what_the_client_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with bench(image_url_timeout_seconds=0.5) as b:
            with caplog.at_level(logging.WARNING, "blip.urls"):
                for url in ("http://inner.example/a?secret=1", "http://10.0.0.1/a?secret=1", "http://good.example:22/"):
                    with pytest.raises(FetchError) as caught:
                        await b.fetch(url)
                    assert "10.0.0" not in caught.value.detail

    run(test)
    told = [record.getMessage() for record in caplog.records]
    assert [("10.0.0.7" in told[0], "10.0.0.1" in told[1], "port 22" in told[2])] == [(True, True, True)]
    assert not any("secret" in line for line in told)
    assert {record.fields["request_id"] for record in caplog.records} == {"test-1"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "url",
    [
        "http://good.example/silent?secret",
        "http://good.example/page?secret",
        "http://good.example/gzip?secret",
        "http://good.example/larger?secret",
        "http://good.example/no-http?secret",
        "http://good.example/loop?secret",
        "http://good.example/missing?secret",
        "http://good.example/to?/missing%3Fsecret",
        "http://good.example/to?http%3A%2F%2F10.0.0.1/secret",
        "http://somebody:secret@good.example/",
        "ftp://good.example/secret",
    ],
)
def test_the_log_names_the_host_and_nothing_that_may_be_secret(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with bench(image_url_timeout_seconds=0.5) as b:
            with caplog.at_level(logging.WARNING, "blip.urls"), pytest.raises((FetchError, UnsupportedMediaError)):
                await b.fetch(url)

    run(test)
    [line] = [record.getMessage() for record in caplog.records]
    assert "'good.example'" in line
    assert ("'10.0.0.1'" in line) == ("10.0.0.1" in url)
    assert "secret" not in line


def test_off_by_default() -> None:
    async def test() -> None:
        async with bench(image_urls="off") as b:
            with pytest.raises(ImageUrlError, match="not enabled"):
                await b.fetch(GOOD)
            assert b.network.asked == []

    run(test)


def test_a_failure_lets_go_of_what_had_come() -> None:
    failure = NotFetchedError(ImageUrlError("for the client"), "for the log")
    assert (failure.error.detail, f"{failure}", failure.not_before) == ("for the client", "for the log", 0.0)
