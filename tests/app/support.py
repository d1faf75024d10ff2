"""The service over fakes, and words for what the tests do with it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from PIL import Image

from app.decoding.picture import finish, open_picture
from app.decoding.pool import decoder_processes
from app.decoding.protocol import Decoded, HoldBytes, Job
from app.http.admission import Admission
from app.main import create_app, load_models
from app.service import MakeDecoder, Service
from app.settings import Settings
from models.base import Capabilities, ServedModel
from models.fake.runner import FakeRunner, Hold, fake_models
from tests import golden

T = TypeVar("T")
PNG = {"content-type": "image/png"}
ROUTES = ("/models", "/metrics", "/openapi.json", "/docs", "/health/live", "/health/ready")
TASKS = ("/caption", "/vqa", "/match", "/embed", "/classify", "/capfilt", "/localize", "/segment", "/detect")
JSON_ONLY = ("/rerank", "/v1/rerank", "/v1/chat/completions", "/v1/responses", "/v1/embeddings")
FIELDS: dict[str, dict[str, Any]] = {
    "/caption": {},
    "/vqa": {"question": "what color is it?"},
    "/match": {"text": "red"},
    "/embed": {},
    "/classify": {"label": ["red", "blue"]},
    "/capfilt": {"seed": 1},
    "/localize": {"text": "red"},
    "/segment": {"text": "red"},
    "/detect": {"text": "red"},
}


def run(test: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return asyncio.run(asyncio.wait_for(test(), 60))


def picture(
    colour: str | int | tuple[int, ...] = "red", size: tuple[int, int] = (32, 32), mode: str = "RGB"
) -> Image.Image:
    return Image.new(mode, size, colour)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(colour: str | tuple[int, ...] = "red", size: tuple[int, int] = (32, 32)) -> bytes:
    return encoded(picture(colour, size))


def animated(
    colours: Sequence[str | tuple[int, ...]], kind: str = "GIF", size: tuple[int, int] = (64, 48), **options: Any
) -> bytes:
    first, *others = (picture(colour, size) for colour in colours)
    lossless = {"lossless": True} if kind == "WEBP" else {}
    return encoded(first, kind, save_all=True, append_images=others, **lossless, **options)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


RED, BLUE, GREEN = png("red"), png("blue"), png("green")


@dataclass(slots=True)
class Lab:
    """A service in this process, and a client of it."""

    client: httpx.AsyncClient
    service: Service
    admission: Admission
    app: Any
    tower: FakeRunner
    heads: FakeRunner

    async def ask(self, path: str, image: bytes = RED, **fields: Any) -> httpx.Response:
        return await self.client.post(path, json={"image": b64(image)} | FIELDS[path] | fields)

    def begin(self, path: str, image: bytes = RED, **fields: Any) -> asyncio.Task[httpx.Response]:
        return asyncio.create_task(self.ask(path, image, **fields))

    async def say(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer to a JSON body."""
        response = await self.client.post(path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def count(self, name: str, **labels: str) -> float:
        return self.service.metrics.registry.get_sample_value(f"blip_{name}", labels) or 0.0


class InlineDecoder:
    """Decodes where it is called: small pictures, in tests of other things."""

    async def start(self) -> None:
        pass

    async def decode(self, job: Job, hold: HoldBytes) -> Decoded:
        opened = open_picture(job)
        with hold(opened.num_bytes, opened.answer_bytes):
            return finish(opened, job)

    def sickness(self) -> str | None:
        return None

    async def close(self) -> None:
        pass


@asynccontextmanager
async def lab(capabilities: Capabilities | None = None, **settings: Any) -> AsyncIterator[Lab]:
    tower, heads = FakeRunner("fake-tower"), FakeRunner("fake-heads", capabilities)
    async with serving(lambda _: fake_models(tower, heads), **settings) as (client, app):
        await until_ready(client)
        yield Lab(client, app.state.service, app.state.admission, app, tower, heads)


@asynccontextmanager
async def serving(
    load: Callable[[Settings], list[ServedModel]],
    make_decoder: MakeDecoder = lambda *_: InlineDecoder(),
    /,
    **settings: Any,
) -> AsyncIterator[tuple[httpx.AsyncClient, Any]]:
    app = create_app(Settings(**({"threads": 2} | settings)), load, make_decoder)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test", timeout=30) as client,
    ):
        yield client, app


class Asking:
    """Asks a service from outside of an event loop."""

    def __init__(self, client: httpx.AsyncClient, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner

    def ask(self, path: str, bodies: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The answers to all bodies, sent concurrently."""

        async def every() -> list[httpx.Response]:
            return await asyncio.gather(*(self._client.post(path, json=body) for body in bodies))

        responses = self._runner.run(every())
        assert [response.status_code for response in responses] == [200] * len(bodies), responses[0].text
        return [response.json() for response in responses]

    def side_by_side(
        self, requests: Sequence[tuple[str, Mapping[str, Any]]], ended: Callable[[str], None] = lambda _: None
    ) -> list[Any]:
        """The answers to all, sent in this order without waiting; `ended` is called with the path of each that ends."""

        async def one(path: str, body: Mapping[str, Any]) -> httpx.Response:
            response = await self._client.post(path, json=body)
            ended(path)
            return response

        async def every() -> list[httpx.Response]:
            return await asyncio.gather(*(one(path, body) for path, body in requests))

        responses = self._runner.run(every())
        assert {response.status_code for response in responses} == {200}
        return [response.json() for response in responses]

    def refused(self, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        """The status and the problem."""
        response = self._runner.run(self._client.post(path, json=body))
        return response.status_code, response.json()

    def posted(self, path: str, body: Mapping[str, Any]) -> str:
        """The answer to a body, which may be a stream."""
        response = self._runner.run(self._client.post(path, json=body))
        assert response.status_code == 200, response.text
        return response.text

    def get(self, path: str) -> Any:
        return json.loads(self.text(path))

    def text(self, path: str) -> str:
        response = self._runner.run(self._client.get(path))
        assert response.status_code == 200
        return response.text


@contextmanager
def asking(
    profile: str, catalog: Path, dtype: str = "fp32", make_decoder: MakeDecoder = decoder_processes
) -> Iterator[Asking]:
    """A service of real checkpoints."""
    device = os.environ.get(golden.DEVICE_VARIABLE, "cpu")
    settings = {"profile": profile, "catalog": catalog, "dtype": dtype, "device": device, "threads": 1}
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        client, _ = runner.run(stack.enter_async_context(serving(load_models, make_decoder, **settings)))
        runner.run(until_ready(client))
        yield Asking(client, runner)
        runner.run(stack.aclose())


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """The loop turns until it is so: bounded by `run`."""
    while not await condition():  # noqa: ASYNC110
        await asyncio.sleep(0.002)


async def until_ready(client: httpx.AsyncClient) -> None:
    async def ready() -> bool:
        return (await client.get("/health/ready")).status_code == 200

    await until(ready)


async def entered(hold: Hold) -> None:
    """Wait until a device call is held."""
    assert await asyncio.to_thread(hold.entered)


async def waiting(service: Service, num_items: int) -> None:
    """Wait until so many work items are in the queue."""

    async def so_many() -> bool:
        return service.engine.queue_items >= num_items

    await until(so_many)


def kind(response: httpx.Response) -> tuple[int, str]:
    """Of a problem: its status, and the last part of its type."""
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["status"] == response.status_code
    assert problem["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    if response.status_code in (429, 503):
        assert response.headers["retry-after"].isdigit()
    return response.status_code, problem["type"].removeprefix("/errors/")


class Connection:
    """A client that sends its request piece by piece, or leaves: what no HTTP library does."""

    def __init__(self, app: Any, path: str, headers: dict[str, str]) -> None:
        self._received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("test", 80),
        }
        self.task = asyncio.create_task(app(scope, self._received.get, self._send))

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def send(self, body: bytes, *, more: bool = False) -> None:
        self._received.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self) -> None:
        self._received.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def problem(self) -> Any:
        return json.loads(b"".join(message.get("body", b"") for message in self.sent))
