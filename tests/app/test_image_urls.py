"""Images by URL, in all forms of JSON: admitted, bounded, counted, answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app import main
from app.engine.batching import Kind
from app.errors import DrainingError
from app.http.tracing import Tracing
from app.urls.fetch import MOST_FETCHES
from models.base import Capabilities, Op
from models.inputs import PairInput
from tests.app.support import (
    BLUE,
    FIELDS,
    GREEN,
    RED,
    TASKS,
    Connection,
    Lab,
    b64,
    entered,
    kind,
    lab,
    run,
    until,
    waiting,
)
from tests.app.urls.host import Host, host
from tests.app.urls.network import Network, installed

URL = "http://good.example/red.png"
SILENT = "http://good.example/silent"


@asynccontextmanager
async def served(capabilities: Capabilities | None = None, **settings: Any) -> AsyncIterator[tuple[Lab, Host]]:
    async with host() as plain, lab(capabilities, **({"image_urls": "public"} | settings)) as to:
        with installed(Network(plain.port, 0, 0)):
            yield to, plain


async def asked(one: Host, number: int) -> None:
    async def so_many() -> bool:
        return len(one.heads) >= number

    await until(so_many)


async def gone(one: Host) -> None:
    async def none() -> bool:
        return one.open == 0

    await until(none)


async def admitted(to: Lab) -> None:
    async def one() -> bool:
        return len(to.admission.exchanges) == 1

    await until(one)


@asynccontextmanager
async def held_fetches(to: Lab) -> AsyncIterator[Callable[[], None]]:
    """Yields what lets them go on."""
    held, fetch = asyncio.Event(), to.service.fetcher.fetch

    async def later(*arguments: Any, **named: Any) -> bytes:
        await held.wait()
        return await fetch(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(to.service.fetcher, "fetch", later)
        yield held.set


@pytest.mark.parametrize("path", TASKS)
def test_every_task_takes_one(path: str) -> None:
    async def test() -> None:
        async with served() as (to, _):
            by_url = await to.client.post(path, json={"image": f" {URL}"} | FIELDS[path])
            by_bytes = await to.ask(path)
            assert (by_url.status_code, by_url.json()) == (200, by_bytes.json())
            assert "fetch;dur=" in by_url.headers["server-timing"]
            assert "fetch;dur=" not in by_bytes.headers["server-timing"]
            assert to.count("stage_seconds_count", stage="fetch") == to.count("image_fetch_seconds_count") == 1
            assert to.count("image_fetches_total", result="ok") == 1
            assert to.count("feature_cache_total", result="hit") == 1  # the bytes are the same

    run(test)


def message(image: str) -> list[dict[str, Any]]:
    parts = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": image}}]
    return [{"role": "user", "content": parts}]


PICTURES = [f"data:image/png;base64,{b64(data)}" for data in (RED, BLUE)]
DOORS: dict[str, Callable[[str], dict[str, Any]]] = {
    "/v1/chat/completions": lambda image: {"messages": message(image), "num_beams": 1},
    "/v1/responses": lambda image: {"input": message(image)},
    "/v1/embeddings": lambda image: {"input": [image], "modality": "image"},
    "/rerank": lambda image: {"query": {"image": image}, "documents": ["red", "blue"]},
    "/v1/rerank": lambda image: {"query": "red", "documents": [{"image": image}, {"image": PICTURES[1]}]},
}


@pytest.mark.parametrize("path", DOORS)
def test_the_doors_of_other_tools_take_one(path: str) -> None:
    async def test() -> None:
        async with served() as (to, _):
            by_url, by_bytes = [await to.client.post(path, json=DOORS[path](one)) for one in (URL, PICTURES[0])]
            assert (by_url.status_code, without_names(by_url.json())) == (200, without_names(by_bytes.json()))
            assert to.count("image_fetches_total", result="ok") == 1

    run(test)


def without_names(answer: Any) -> Any:
    """Two answers have two ids and times; a text whose embedding is kept has no tokens."""
    if isinstance(answer, list):
        return [without_names(one) for one in answer]
    if isinstance(answer, dict):
        return {
            name: without_names(one)
            for name, one in answer.items()
            if name not in ("id", "created", "created_at", "usage")
        }
    return answer


def test_a_url_that_stands_for_a_text_is_a_text() -> None:
    """Which of the pages is the picture from? An image by URL is said to be one."""

    async def test() -> None:
        async with served() as (to, one):
            body = {"query": {"image": PICTURES[0]}, "documents": [URL, "red"], "return_documents": True}
            results = (await to.say("/rerank", body))["results"]
            assert {"text": URL} in [result["document"] for result in results]
            await to.say("/rerank", {"query": URL, "documents": [{"image": PICTURES[0]}]})
            assert one.heads == []

    run(test)


@pytest.mark.parametrize("path", DOORS)
def test_the_doors_of_other_tools_refuse_it_in_their_shape(path: str) -> None:
    async def test() -> None:
        async with served(image_urls="off") as (to, one):
            refused = await to.client.post(path, json=DOORS[path](URL))
            told = refused.json()
            detail = told["error"]["message"] if path.startswith("/v1/") else told["detail"]
            assert refused.status_code == (400 if path.startswith("/v1/") else 422)
            assert detail.endswith("Images by URL are not enabled.")
            assert one.heads == []

    run(test)


def test_it_has_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(main, "Tracing", lambda: Tracing(SimpleSpanProcessor(exporter)))

    async def test() -> None:
        async with served(tracing=True) as (to, _):
            await to.client.post("/caption", json={"images": [URL, f"{URL}?again"]})

    run(test)
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans].count("fetch") == 2
    assert not any("good.example" in span.to_json() for span in spans)


def test_among_others_in_order_and_each_url_once() -> None:
    async def test() -> None:
        async with served() as (to, one):
            images = [b64(BLUE), URL, URL, b64(RED), f"{URL}?again"]
            answer = (await to.client.post("/embed", json={"images": images})).json()
            alone = [(await to.ask("/embed", data)).json()["images"][0] for data in (BLUE, RED)]
            assert answer["images"] == [alone[0], *[alone[1]] * 4]
            assert len(one.heads) == 2

    run(test)


def test_of_several_the_wrong_one_is_named() -> None:
    async def test() -> None:
        async with served() as (to, _):
            for bad, told in (
                ("http://10.0.0.1/", (422, "image-url")),
                ("http://good.example/page", (415, "unsupported-media")),
            ):
                refused = await to.client.post("/caption", json={"images": [b64(RED), bad]})
                assert kind(refused) == told
                assert refused.json()["detail"].startswith("image: 1: The image's URL")
            refused = await to.client.post("/caption", json={"image": "http://good.example/missing"})
            assert kind(refused) == (502, "image-host")
            assert refused.json()["detail"] == "image: The image's host answered 404."

    run(test)


@pytest.mark.parametrize("url", ["http://\\ud800.example/", "http://good.example/\\ud800"])
def test_one_that_is_no_unicode_is_refused(url: str) -> None:
    async def test() -> None:
        async with served() as (to, _):
            body, json_type = f'{{"image": "{url}"}}', {"content-type": "application/json"}
            assert kind(await to.client.post("/caption", content=body, headers=json_type)) == (422, "image-url")

    run(test)


def test_off_unless_the_operator_says_so() -> None:
    async def test() -> None:
        async with served(image_urls="off") as (to, one):
            refused = await to.client.post("/caption", json={"image": URL})
            assert kind(refused) == (422, "image-url")
            assert refused.json()["detail"] == "image: Images by URL are not enabled."
            assert one.heads == []

    run(test)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        *((path, {"model": "other"}) for path in (*TASKS, *DOORS)),
        ("/caption", {"num_captions": 9}),
        ("/caption", {"num_beems": 2}),
        ("/caption", {"prompt": "a " * 100}),  # more than the positions hold
        ("/vqa", {"history": [{"question": "a", "answer": "b"}]}),
        ("/vqa", {"template": "Q: {}"}),
        ("/match", {"video": True}),
        ("/embed", {"pooling": "mean"}),
        ("/embed", {"space": "image"}),
        ("/embed", {"video": True}),
        ("/localize", {"layer": 2}),
        ("/v1/chat/completions", {"candidates": ["a", "b"], "model": "fake:caption"}),
        ("/v1/chat/completions", {"min_new_tokens": 9, "max_tokens": 2}),
        ("/v1/chat/completions", {"min_new_tokens": 9, "max_tokens": 2, "stream": True}),
        ("/v1/embeddings", {"dimensions": 1}),
        ("/rerank", {"video": True}),
    ],
)
def test_nothing_is_fetched_for_what_is_refused_anyway(path: str, fields: dict[str, Any]) -> None:
    """What another model could do, too: it is this one that is asked."""

    async def test() -> None:
        async with served(capabilities=Capabilities()) as (to, one):
            body = {"image": URL} | FIELDS[path] if path in FIELDS else DOORS[path](URL)
            refused = await to.client.post(path, json=body | fields)
            assert refused.status_code in (400, 404, 422)
            assert one.heads == []

    run(test)


def test_nor_for_whom_there_is_no_time() -> None:
    async def test() -> None:
        async with served(request_timeout_seconds=1) as (to, one):
            rates, itm = to.service.engine.rates, Kind("fake-heads", Op.SCORE, PairInput)
            rates.spent(itm, 0.5)
            rates.finished(itm, 1)
            with to.heads.held() as hold:
                first = to.begin("/match", text="red", head="itm")
                await entered(hold)
                refused = await to.client.post("/match", json={"image": URL, "text": ["red", "blue"], "head": "itm"})
                assert kind(refused) == (429, "queue-full")
            assert (await first).status_code == 200
            assert one.heads == []

    run(test)


def test_who_only_waits_for_a_url_holds_nobody_up() -> None:
    """Its work is not counted before the picture is there, and it is then."""

    async def test() -> None:
        async with served() as (to, one), held_fetches(to) as release:
            late = asyncio.create_task(to.client.post("/match", json={"image": URL, "text": ["red", "blue"]}))
            await admitted(to)
            with to.heads.held() as hold:
                assert not to.admission.ledger.unfinished
                assert to.count("reserved_items") == 0
                release()
                await entered(hold)
                assert to.admission.ledger.unfinished.total() == 5
            assert (await late).status_code == 200
            assert not to.admission.ledger.unfinished
            assert len(one.heads) == 1

    run(test)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/capfilt", {"seed": 1}),
        ("/match", {"text": "red", "video": True}),
        ("/embed", {"text": "red", "space": "multimodal"}),
        ("/classify", {"label": ["red", "blue"]}),
    ],
)
def test_who_asks_twice_for_its_features_fetches_once(path: str, fields: dict[str, Any]) -> None:
    async def test() -> None:
        async with served() as (to, one):
            images = [URL, f"{URL}?again", URL]
            by_url = await to.client.post(path, json={"images": images} | fields)
            by_bytes = await to.client.post(path, json={"images": [b64(RED)] * 3} | fields)
            assert (by_url.status_code, by_url.json()) == (200, by_bytes.json())
            assert len(one.heads) == 2

    run(test)


def test_videos_are_fetched_side_by_side() -> None:
    async def test() -> None:
        async with served() as (to, one):
            documents = [{"image": f"http://good.example/silent?{number}"} for number in range(3)]
            body = {"query": "red", "documents": documents, "video": True}
            asking = asyncio.create_task(to.client.post("/rerank", json=body))
            await asked(one, 3)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    run(test)


def test_what_is_drawn_over_was_fetched_once() -> None:
    async def test() -> None:
        async with served() as (to, one):
            accept = {"accept": "image/png"}
            drawn = await to.client.post("/localize", json={"image": URL, "text": "red"}, headers=accept)
            of_bytes = await to.client.post("/localize", json={"image": b64(RED), "text": "red"}, headers=accept)
            assert (drawn.status_code, drawn.content) == (200, of_bytes.content)
            assert len(one.heads) == 1

    run(test)


@pytest.mark.parametrize(("text", "word"), [(f" {URL}", "a URL"), (PICTURES[0], "a data URI")])
def test_other_forms_take_none_and_tell_what_to_do(text: str, word: str) -> None:
    async def test() -> None:
        async with served() as (to, one):
            several: list[Any] = [("image", ("a.png", RED)), ("image", ("b.txt", text))]
            for files in ([("image", (None, text))], several):
                refused = await to.client.post("/caption", files=files)
                assert kind(refused) == (415, "unsupported-media")
                place = "image: 1: " if len(files) > 1 else "image: "
                assert refused.json()["detail"].startswith(f"{place}is {word}: only a JSON body can hold it")
            refused = await to.client.post("/caption", content=text, headers={"content-type": "image/png"})
            assert refused.json()["detail"].startswith(f"image: is {word}")
            assert one.heads == []

    run(test)


def test_bytes_are_counted_as_they_come_and_refused_beyond_the_limit() -> None:
    async def test() -> None:
        async with served(max_body_bytes=2_000_000, max_inflight_bytes=2_000_000) as (to, _):
            slow = asyncio.create_task(to.client.post("/caption", json={"image": "http://good.example/slowly-endless"}))

            async def counted() -> bool:
                return to.admission.ledger.bytes > 100_000

            await until(counted)
            refused = await to.client.post("/caption", json={"image": "http://good.example/endless"})
            assert kind(refused) == (429, "bytes-full")
            assert to.count("image_fetches_total", result="no-room") == 1
            slow.cancel()
            await asyncio.gather(slow, return_exceptions=True)

    run(test)


def test_what_can_never_fit_is_not_told_to_come_back() -> None:
    async def test() -> None:
        async with served(max_body_bytes=2_900_000, max_inflight_bytes=3_000_000) as (to, _):
            images = [f"http://good.example/endless?{number}" for number in range(2)]
            refused = await to.client.post("/caption", json={"images": images})
            assert kind(refused) == (413, "too-many-bytes")
            assert "3000000 bytes" in refused.json()["detail"]
            assert to.count("image_fetches_total", result="too-large") >= 1
            assert to.admission.ledger.bytes == 0

    run(test)


def test_nor_is_what_is_promised_and_cannot_fit() -> None:
    """Also while others hold bytes, as they nearly always do: else it would be told to come back for ever."""

    async def test() -> None:
        async with served(max_body_bytes=1_000_000, max_inflight_bytes=1_000_000) as (to, _):
            to.admission.ledger.add_bytes(100_000)
            images = [f"http://good.example/promised?{number}" for number in range(2)]  # 600 kB each
            assert kind(await to.client.post("/caption", json={"images": images})) == (413, "too-many-bytes")

    run(test)


def test_a_host_that_was_never_asked_is_not_blamed() -> None:
    """Others have every place: to try again is right."""

    async def test() -> None:
        async with served(image_url_timeout_seconds=0.5) as (to, one), AsyncExitStack() as others:
            for number in range(MOST_FETCHES):
                await others.enter_async_context(to.service.fetcher._slots.one(number))
            refused = await to.client.post("/caption", json={"image": URL})
            assert kind(refused) == (429, "queue-full")
            assert refused.headers["retry-after"] == "1"
            assert one.heads == []
            assert to.count("image_fetches_total", result="no-place") == 1

    run(test)


def test_turns_are_those_of_requests_whatever_they_call_themselves() -> None:
    """An id that two clients have, or one that makes many, is nobody's share."""

    async def test() -> None:
        async with served() as (to, _):
            owners: list[Hashable] = []
            slots = to.service.fetcher._slots
            take = slots.one

            def told(owner: Hashable) -> AbstractAsyncContextManager[None]:
                owners.append(owner)
                return take(owner)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(slots, "one", told)
                body = {"images": [URL, f"{URL}?again"]}
                for _ in range(2):
                    answer = await to.client.post("/caption", json=body, headers={"x-request-id": "the-same"})
                    assert answer.status_code == 200
            assert [owners.index(one) for one in owners] == [0, 0, 2, 2]

    run(test)


def test_nothing_is_held_in_the_end() -> None:
    async def test() -> None:
        async with served(max_body_bytes=1_000_000, image_url_timeout_seconds=0.5) as (to, _):
            for path in ("red.png", "endless", "trickle", "page", "missing"):
                await to.client.post("/caption", json={"image": f"http://good.example/{path}"})
            assert to.admission.ledger.bytes == 0
            assert (to.admission.exchanges, to.service.engine.queue_items) == (set(), 0)

    run(test)


def test_the_deadline_covers_it() -> None:
    async def test() -> None:
        async with served() as (to, one):
            late = await to.client.post("/caption", json={"image": SILENT}, headers={"x-request-timeout": "0.05"})
            assert kind(late) == (504, "deadline")
            await gone(one)

    run(test)


def test_who_only_waits_for_a_url_has_no_place_in_the_queue() -> None:
    """As while a body comes: hosts that do not answer would fill the queue."""

    async def test() -> None:
        async with served(max_queue_items=2) as (to, one):
            silent = [asyncio.create_task(to.client.post("/caption", json={"image": SILENT})) for _ in range(4)]
            await asked(one, 4)
            assert to.count("inflight_requests") == 4
            assert to.count("reserved_items") == 0
            assert (await to.ask("/caption")).status_code == 200
            for each in silent:
                each.cancel()
            await asyncio.gather(*silent, return_exceptions=True)

    run(test)


def test_a_place_is_asked_for_again_when_it_is_there() -> None:
    async def test() -> None:
        async with served(max_queue_items=2) as (to, one), held_fetches(to) as release:
            late = asyncio.create_task(to.client.post("/caption", json={"image": URL}))
            await admitted(to)
            with to.heads.held() as hold:
                others = [to.begin("/caption")]
                await entered(hold)
                others += [to.begin("/caption", colour) for colour in (BLUE, GREEN)]
                await waiting(to.service, 2)
                release()
                assert kind(await late) == (429, "queue-full")
                assert to.count("rejected_total", reason="queue-full") == 1
            assert [(await each).status_code for each in others] == [200] * 3
            assert len(one.heads) == 1

    run(test)


def test_who_leaves_is_not_fetched_for() -> None:
    async def test() -> None:
        async with served() as (to, one):
            connection = Connection(to.app, "/caption", {"content-type": "application/json"})
            connection.send(b'{"image": "%b"}' % SILENT.encode())
            await asked(one, 1)
            connection.leave()
            await connection.task
            await gone(one)
            assert to.count("image_fetches_total", result="cancelled") == 1
            assert to.count("requests_total", task="caption", model="fake", code="499") == 1

    run(test)


def test_a_drain_waits_for_it_and_ends_it_when_its_time_is_over() -> None:
    async def test() -> None:
        async with served() as (to, one):
            slow = asyncio.create_task(to.client.post("/caption", json={"image": SILENT}))
            await asked(one, 1)
            to.admission.drain()
            assert len(to.admission.exchanges) == 1
            to.admission.abort(DrainingError("The service is stopping."))
            assert kind(await slow) == (503, "draining")
            assert to.admission.exchanges == set()

    run(test)


def test_a_request_admitted_before_a_drain_is_served() -> None:
    async def test() -> None:
        async with served() as (to, _), held_fetches(to) as release:
            slow = asyncio.create_task(to.client.post("/caption", json={"image": URL}))
            await admitted(to)
            to.admission.drain()
            release()
            assert (await slow).status_code == 200

    run(test)


def test_keys_are_asked_for_before() -> None:
    async def test() -> None:
        async with served(api_keys="key-1") as (to, one):
            assert kind(await to.client.post("/caption", json={"image": URL})) == (401, "unauthorized")
            assert one.heads == []
            asked_with = await to.client.post("/caption", json={"image": URL}, headers={"x-api-key": "key-1"})
            assert asked_with.status_code == 200
            assert "key-1" not in one.heads[0]

    run(test)
