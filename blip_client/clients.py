"""The two clients: alike but for `await`."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

import httpx

from blip_client import requests
from blip_client.exchange import PASSING, Exchange, message, options
from blip_client.requests import Request
from blip_client.tries import Retrying, Try

P = ParamSpec("P")
T = TypeVar("T")
OnTry = Callable[[Try], None]


def _method(make: Callable[P, Request[T]]) -> Callable[Concatenate[Client, P], T]:
    """Asks what `make` makes of its arguments."""

    def ask(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client.ask(make(*args, **kwargs))

    return _described(ask, make)


def _coroutine(make: Callable[P, Request[T]]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """As `_method`."""

    async def ask(client: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await client.ask(make(*args, **kwargs))

    return _described(ask, make)


F = TypeVar("F", bound=Callable[..., Any])


def _described(ask: F, make: Callable[..., Request[Any]]) -> F:
    """With the name, the parameters and the text of the request, for `help`."""
    request = cast("type[Request[Any]]", make)
    made = inspect.signature(request)
    client = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    ask.__name__ = ask.__qualname__ = request.path[1:]
    ask.__doc__ = request.__doc__
    ask.__signature__ = made.replace(  # type: ignore[attr-defined]
        parameters=[client, *made.parameters.values()], return_annotation=request.result.__name__
    )
    return ask


class Client:
    """A client of one service, for any number of threads.

    `url`: its address; default: BLIP_URL, else http://127.0.0.1:8000. `api_key`: default: BLIP_API_KEY, else none.
    `timeout_seconds`: of one try; the service answers within 60, unless its operator changed that. `retries`: how many
    at most, or a policy of one's own. `on_try` is called after each try.

    Raises, in each method: ProblemError, UnreachableError, AnswerError, and OSError for files.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 65.0,
        retries: int | Retrying = 5,
        transport: httpx.BaseTransport | None = None,
        on_try: OnTry | None = None,
    ) -> None:
        self._http = httpx.Client(transport=transport, **options(url, api_key, timeout_seconds))
        self._retrying = retries if isinstance(retries, Retrying) else Retrying(retries)
        self._on_try = on_try

    caption = _method(requests.CaptionRequest)
    vqa = _method(requests.VqaRequest)
    match = _method(requests.MatchRequest)
    embed = _method(requests.EmbedRequest)
    classify = _method(requests.ClassifyRequest)
    rerank = _method(requests.RerankRequest)
    capfilt = _method(requests.CapfiltRequest)
    localize = _method(requests.LocalizeRequest)
    segment = _method(requests.SegmentRequest)
    detect = _method(requests.DetectRequest)
    models = _method(requests.ModelsRequest)

    def ask(self, request: Request[T]) -> T:
        """What the other methods do with their arguments."""
        sent = message(request, request.body())
        exchange = Exchange(request, self._retrying, self._on_try)
        while True:
            try:
                wait = exchange.heard(self._http.request(**sent))
            except PASSING as error:
                wait = exchange.not_heard(error)
            if wait is None:
                return cast("T", exchange.answer)
            time.sleep(wait)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """As `Client`, for asyncio: its methods are awaited. `transport` can be httpx.ASGITransport, for a service in this
    process."""

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 65.0,
        retries: int | Retrying = 5,
        transport: httpx.AsyncBaseTransport | None = None,
        on_try: OnTry | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(transport=transport, **options(url, api_key, timeout_seconds))
        self._retrying = retries if isinstance(retries, Retrying) else Retrying(retries)
        self._on_try = on_try

    caption = _coroutine(requests.CaptionRequest)
    vqa = _coroutine(requests.VqaRequest)
    match = _coroutine(requests.MatchRequest)
    embed = _coroutine(requests.EmbedRequest)
    classify = _coroutine(requests.ClassifyRequest)
    rerank = _coroutine(requests.RerankRequest)
    capfilt = _coroutine(requests.CapfiltRequest)
    localize = _coroutine(requests.LocalizeRequest)
    segment = _coroutine(requests.SegmentRequest)
    detect = _coroutine(requests.DetectRequest)
    models = _coroutine(requests.ModelsRequest)

    async def ask(self, request: Request[T]) -> T:
        """What the other methods do with their arguments. Files are read in a thread."""
        sent = message(request, await asyncio.to_thread(request.body))
        exchange = Exchange(request, self._retrying, self._on_try)
        while True:
            try:
                wait = exchange.heard(await self._http.request(**sent))
            except PASSING as error:
                wait = exchange.not_heard(error)
            if wait is None:
                return cast("T", exchange.answer)
            await asyncio.sleep(wait)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
