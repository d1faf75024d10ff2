"""Fetching images. The one module that imports httpx, and httpcore under it.

httpcore's pool is used without httpx's client, which would keep cookies, read proxies and passwords from the
environment, follow redirects and undo compression. What httpx has is the parser of URLs: each is parsed once, and
what is checked is what is dialled.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable
from ssl import SSLContext
from typing import Any, Protocol

import httpcore
import httpx

from app import __version__
from app.errors import (
    ImageHostError,
    ImageSlowError,
    ImageTooLargeError,
    ImageUrlError,
    QueueFullError,
    ServiceError,
    UnsupportedMediaError,
)
from app.metrics import Metrics
from app.settings import Settings
from app.urls.addresses import may_be_dialled, parsed
from app.urls.failures import NOT_ALLOWED, RESULTS, NotFetchedError
from app.urls.hosts import MOST_HOST_CHARS, Hosts
from app.urls.lookup import LookUps
from app.urls.slots import Slots

MOST_FETCHES = 16  # at once
MOST_REDIRECTS = 3
MOST_URL_CHARS = 8192
CONNECT_SECONDS = 3.0  # for a look-up, for a connection, and for TLS
# The parser is in Python, and goes through what it is given without a turn of the event loop.
MOST_HEAD_BYTES, HEAD_PIECE_BYTES = 64 * 1024, 1024
BODY_PIECE_BYTES = 64 * 1024
FREE_PIECES, LEAST_PIECE_BYTES = 1000, 512  # so many of any size, then of this one on average: chunks cost time
REDIRECTS = (301, 302, 303, 307, 308)
logger = logging.getLogger("blip.urls")


class Room(Hashable, Protocol):
    """What one request may hold. Both may raise TooManyBytesError."""

    def promise(self, num_bytes: int, /) -> None:
        """That are to come."""

    def add_body(self, num_bytes: int, /) -> None:
        """That are there. Raises BytesFullError."""


class ImageFetcher:
    """Belongs to one event loop."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._metrics = metrics
        self._hosts = Hosts(settings)
        self._max_bytes = settings.max_body_bytes
        self._seconds = settings.image_url_timeout_seconds
        self._connect_seconds = min(CONNECT_SECONDS, self._seconds / 2)
        self._slots = Slots(MOST_FETCHES)
        self._look_ups = LookUps(MOST_FETCHES)
        self._proxy = settings.image_url_proxy
        # Certifi's authorities, or those in SSL_CERT_FILE.
        self._ssl = httpx.create_ssl_context() if settings.image_urls != "off" else None

    async def fetch(self, url: str, room: Room, request_id: str) -> bytes:
        """The body that a URL leads to, as it came: what it is, its decoder tells. Turns go round over rooms: an id is
        the client's own, and may be another's.

        Raises ImageUrlError, ImageHostError, ImageSlowError, ImageTooLargeError, UnsupportedMediaError, BytesFullError,
        TooManyBytesError, QueueFullError (its turn came too late: too many are being fetched).
        """
        began, result = time.monotonic(), "cancelled"
        try:
            data = await self._fetch(url, room, request_id)
            result = "ok"
        except ServiceError as error:
            result = RESULTS[type(error)]
            raise
        finally:
            self._metrics.image_fetches.labels(result).inc()
            self._metrics.image_fetch_seconds.observe(time.monotonic() - began)
        return data

    async def _fetch(self, url: str, room: Room, request_id: str) -> bytes:
        """Failures are told in the log here, with more than the client may know."""
        give_up, in_time = time.monotonic() + self._seconds, False
        hosts: list[str] = []  # one after the other: no secrets, as paths and queries may be
        try:
            first = _parse(lambda: httpx.URL(url if len(url) <= MOST_URL_CHARS else ""))
            hosts.append(_named(first))
            async with asyncio.timeout(self._seconds), self._slots.one(room):
                in_time = give_up - time.monotonic() >= self._connect_seconds
                return await self._follow(first, room, give_up, hosts)
        except (TimeoutError, httpcore.TimeoutException) as error:
            if in_time:
                told: ServiceError = ImageSlowError("The image's host is too slow.")
            else:  # it was never asked
                told = QueueFullError("Too many images are being fetched.")
            failure = NotFetchedError(told, f"too slow: {type(error).__name__}" if in_time else "no place became free")
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError) as error:
            failure = NotFetchedError(ImageHostError("The image's host does not answer as it should."), repr(error))
        except NotFetchedError as raised:
            failure = raised.with_traceback(None)  # whose frames know the bytes, and this one
        told_at = {"fields": {"request_id": request_id}}
        logger.warning(
            "an image was not fetched: %s: %s", " > ".join(hosts) or "no host", failure.reason, extra=told_at
        )
        await asyncio.sleep(failure.not_before - time.monotonic())
        raise failure.error

    async def _follow(self, url: httpx.URL, room: Room, give_up: float, hosts: list[str]) -> bytes:
        for _ in range(1 + MOST_REDIRECTS):
            self._check(url)
            if give_up - time.monotonic() < self._connect_seconds:
                raise TimeoutError  # else what a look-up may still take would tell of names: see `_find`
            answer = await self._get(url, room)
            if isinstance(answer, bytes):
                return answer
            url = _redirected(url, answer)
            hosts.append(_named(url))
        raise NotFetchedError(ImageHostError("The image's URL is redirected too often."), "too many redirects")

    def _check(self, url: httpx.URL) -> None:
        if self._ssl is None:
            raise _refusal("Images by URL are not enabled.", "not enabled")
        if url.scheme not in ("http", "https"):
            raise _refusal("The image's URL must begin with http:// or https://.", f"the scheme {url.scheme[:20]}")
        if url.userinfo:
            raise _refusal("The image's URL must not hold a user or a password.", "a user or a password")
        host, port = url.raw_host.decode("ascii"), _port(url)
        if reason := self._hosts.why_not(host, port):
            raise _refusal(NOT_ALLOWED, f"port {port}: {reason}")

    async def _get(self, url: httpx.URL, room: Room) -> bytes | str:
        """The body, or where it is: the Location of a redirect."""
        async with self._connecting() as pool, self._answer(pool, url) as answer:
            headers = {name.lower(): value.decode("latin-1") for name, value in answer.headers}
            if answer.status in REDIRECTS and b"location" in headers:
                return headers[b"location"]
            if answer.status != 200:
                error = ImageHostError(f"The image's host answered {answer.status}.")
                raise NotFetchedError(error, f"it answered {answer.status}")
            room.promise(self._promised(headers))
            answer.extensions["network_stream"].in_body = True
            pieces, size = list[bytes](), 0
            async for piece in answer.aiter_stream():
                size += len(piece)
                self._check_size(size)
                room.add_body(len(piece))
                pieces.append(piece)
                if len(pieces) > FREE_PIECES and size < LEAST_PIECE_BYTES * len(pieces):
                    raise NotFetchedError(
                        ImageHostError("The image's host sends it in too small pieces."), "small pieces"
                    )
                await asyncio.sleep(0)  # all pieces may be there already
            return b"".join(pieces)

    def _answer(self, pool: httpcore.AsyncConnectionPool, url: httpx.URL) -> Any:
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        headers: dict[bytes | str, bytes | str] = {
            "Host": url.netloc.decode("ascii"),
            "User-Agent": f"blip-serve/{__version__}",
            "Accept": "image/*, */*;q=0.5",
            "Accept-Encoding": "identity",
        }
        seconds = {"connect": self._connect_seconds, "read": self._seconds, "write": self._seconds}
        return pool.stream("GET", target, headers=headers, extensions={"timeout": seconds})

    def _promised(self, headers: dict[bytes, str]) -> int:
        """The bytes that are to come, 0 if that is not told; with what else can be told before."""
        if headers.get(b"content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise NotFetchedError(UnsupportedMediaError("The image's host sends it compressed."), "a Content-Encoding")
        if headers.get(b"content-type", "").strip().lower().startswith("text/html"):
            raise NotFetchedError(UnsupportedMediaError("The image's URL leads to a page."), "text/html")
        length = headers.get(b"content-length", "0")
        num_bytes = int(length) if length.isascii() and length.isdigit() else 0
        self._check_size(num_bytes)
        return num_bytes

    def _check_size(self, num_bytes: int) -> None:
        if num_bytes > self._max_bytes:
            told = f"The image has more than {self._max_bytes} bytes."
            raise NotFetchedError(ImageTooLargeError(told), told)

    # --- the way there ---

    def _connecting(self) -> httpcore.AsyncConnectionPool:
        """For one answer, closed with it: a pool of all keeps the connections of those who leave while they are made,
        until it has room for no other. By a proxy, it is the proxy that looks names up, and that is trusted to."""
        return httpcore.AsyncConnectionPool(
            ssl_context=self._ssl,
            proxy=httpcore.Proxy(self._proxy) if self._proxy else None,
            max_connections=1,
            network_backend=Backend(_as_it_is if self._proxy else self._find),
        )

    async def _find(self, host: str, port: int) -> list[str]:
        """The addresses to dial, looked up once. Names that have none, those that have one that is refused, and those
        of which the resolver does not say are told alike, and at the same time."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._connect_seconds):
                found = [host] if parsed(host) else await self._look_ups.addresses(host, port)
        except TimeoutError:
            reason = "the resolver is too slow"
        else:
            private = self._hosts.may_be_private(host, port)
            refused = [one for one in found if not may_be_dialled(one, may_be_private=private)]
            if found and not refused:
                return found
            reason = f"its address {refused[0]} is not allowed" if refused else "it has no address"
        failure = f"port {port}: {reason}"
        raise NotFetchedError(ImageUrlError(NOT_ALLOWED), failure, not_before=began + self._connect_seconds)


async def _as_it_is(host: str, _: int) -> list[str]:
    return [host]


class Backend(httpcore.AsyncNetworkBackend):
    """Dials the addresses that `find` gives for a host, one after the other. SNI, the certificate's name and Host stay
    the URL's."""

    def __init__(self, find: Callable[[str, int], Awaitable[list[str]]]) -> None:
        self._find = find
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception = httpcore.ConnectError("no address")
        for address in await self._find(host, port):
            try:
                return Stream(await self._inner.connect_tcp(address, port, timeout, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class Stream(httpcore.AsyncNetworkStream):
    """Read in small pieces as long as the head of an answer comes, of which only so much may."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._head_bytes = 0
        self.in_body = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        most = BODY_PIECE_BYTES if self.in_body else HEAD_PIECE_BYTES
        data = await self._inner.read(min(max_bytes, most), timeout)
        if not self.in_body:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                raise httpcore.ReadError("the head of the answer does not end")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        self.in_body, self._head_bytes = False, 0  # a request: the next answer begins
        await self._inner.write(buffer, timeout)

    async def start_tls(
        self,
        ssl_context: SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        return Stream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    async def aclose(self) -> None:
        await self._inner.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


# --- URLs ---


def _refusal(told: str, reason: str) -> NotFetchedError:
    return NotFetchedError(ImageUrlError(told), reason)


def _parse(parse: Callable[[], httpx.URL]) -> httpx.URL:
    try:
        url = parse()
        if not url.raw_host and url.scheme in ("http", "https"):
            raise httpx.InvalidURL("no host")
    except (httpx.InvalidURL, ValueError) as error:
        raise _refusal("The image's URL is not valid.", f"no valid URL: {type(error).__name__}") from None
    return url


def _named(url: httpx.URL) -> str:
    """Its host, for the log. Of a URL that is not checked yet."""
    return repr(url.raw_host[:MOST_HOST_CHARS].decode("ascii", "replace"))


def _redirected(url: httpx.URL, location: str) -> httpx.URL:
    following = _parse(lambda: url.join(location[:MOST_URL_CHARS]))
    if url.scheme == "https" and following.scheme == "http":
        raise _refusal(NOT_ALLOWED, "a redirect from https to http")
    return following


def _port(url: httpx.URL) -> int:
    return (443 if url.scheme == "https" else 80) if url.port is None else url.port
