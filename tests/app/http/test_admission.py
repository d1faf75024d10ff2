"""Promises 4 and 8: work is bounded before it is accepted, and a large request does not hold up a small one."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from app.engine.batching import Kind
from app.errors import BytesFullError, TooManyBytesError
from app.http.admission import OVERHEAD, UNSEEN_SECONDS
from app.http.ledger import Ledger
from models.base import Op
from models.inputs import PairInput
from tests.app.support import BLUE, GREEN, RED, Lab, b64, entered, kind, lab, run, until, waiting

TEXTS = [f"red {number}" for number in range(64)]
ITM = Kind("fake-heads", Op.SCORE, PairInput)


def pairs(there: Lab, num_images: int = 3, num_texts: int = 64) -> asyncio.Task[httpx.Response]:
    images = [b64(image) for image in (RED, BLUE, GREEN)[:num_images]]
    body = {"images": images, "text": TEXTS[:num_texts], "head": "itm"}
    return asyncio.create_task(there.client.post("/match", json=body))


def seen(there: Lab, seconds: float) -> None:
    """As if a pair had taken the device so long."""
    there.service.engine.rates.spent(ITM, seconds)
    there.service.engine.rates.finished(ITM, 1)


# --- the window ---


def test_a_large_request_keeps_two_batches_in_the_queue_and_is_served() -> None:
    async def test() -> None:
        async with lab(max_batch_size=4) as there:
            with there.heads.held() as hold:
                large = pairs(there)
                await entered(hold)
                await waiting(there.service, 4)
                assert there.service.engine.queue_items <= 2 * 4
            assert (await large).status_code == 200
            assert sum(len(call.payloads) for call in there.heads.calls) == 3 * 64

    run(test)


def test_a_large_request_leaves_half_of_the_queue_to_others() -> None:
    async def test() -> None:
        async with lab(max_batch_size=64, max_queue_items=40) as there:
            await pairs(there, num_texts=1)  # its pictures are encoded now
            with there.heads.held() as hold:
                first = there.begin("/caption")
                await entered(hold)
                large = pairs(there)
                await waiting(there.service, 20)
                assert there.service.engine.queue_items == 20
                small = [there.begin("/caption", prompt=f"a {number}") for number in range(10)]
                await waiting(there.service, 30)
            assert [(await one).status_code for one in (first, *small)] == [200] * 11
            assert (await large).status_code == 200

    run(test)


def test_a_question_overtakes_a_thousand_pairs() -> None:
    async def test() -> None:
        async with lab(max_batch_size=4) as there:
            with there.heads.held() as hold:
                large = pairs(there)
                await entered(hold)
                small = pairs(there, num_images=1, num_texts=1)
                await waiting(there.service, 5)
            assert (await small).status_code == 200
            assert not large.done()
            assert (await large).status_code == 200

    run(test)


# --- places ---


def test_each_admitted_request_keeps_a_place() -> None:
    """Requests that decode, or run, come back to the queue: they count as if they were there."""

    async def test() -> None:
        async with lab(max_queue_items=3) as there:
            with there.tower.held() as hold:
                begun = [there.begin("/caption", image) for image in (RED, BLUE, GREEN)]
                await entered(hold)

                async def all_there() -> bool:
                    return there.count("reserved_items") + there.service.engine.queue_items == 3

                await until(all_there)
                assert kind(await there.ask("/caption", prompt="a")) == (429, "queue-full")
            assert [(await one).status_code for one in begun] == [200] * 3
            assert there.count("reserved_items") == 0

    run(test)


# --- work against the deadline ---


def test_more_work_than_can_be_done_in_time_is_refused_with_a_time_to_come_back() -> None:
    async def test() -> None:
        async with lab(request_timeout_seconds=60) as there:
            seen(there, 1.0)
            with there.heads.held() as hold:
                first = pairs(there, num_texts=10)  # 30 s
                await entered(hold)
                response = await there.client.post(
                    "/match", json={"image": b64(RED), "text": TEXTS[:25], "head": "itm"}
                )
                assert kind(response) == (429, "queue-full")
                wait = OVERHEAD * (30 + 25) - 60
                assert wait <= int(response.headers["retry-after"]) <= wait + 2
                assert there.count("admitted_seconds") >= 30
                small = pairs(there, num_images=1, num_texts=3)
            assert [(await one).status_code for one in (first, small)] == [200, 200]
            assert there.count("admitted_seconds") == 0
            assert there.count("rejected_total", reason="queue-full") == 1

    run(test)


def test_the_deadline_is_the_client_s_where_that_is_shorter() -> None:
    async def test() -> None:
        async with lab() as there:
            seen(there, 1.0)
            with there.heads.held() as hold:
                first = pairs(there, num_texts=2)
                await entered(hold)
                body = {"image": b64(RED), "text": "red", "head": "itm"}
                hurried = await there.client.post("/match", json=body, headers={"X-Request-Timeout": "5"})
                assert kind(hurried) == (429, "queue-full")
                patient = asyncio.create_task(there.client.post("/match", json=body))
            assert (await first).status_code == 200
            assert (await patient).status_code == 200

    run(test)


def test_who_comes_to_an_idle_service_is_admitted() -> None:
    async def test() -> None:
        async with lab() as there:
            seen(there, 3600.0)
            assert (await pairs(there)).status_code == 200

    run(test)


def test_what_has_not_been_seen_is_taken_to_be_quick() -> None:
    async def test() -> None:
        async with lab(request_timeout_seconds=0.6) as there:
            first_seconds = 3 * 64 * UNSEEN_SECONDS * OVERHEAD
            assert first_seconds < 0.6 < 2 * first_seconds
            with there.heads.held() as hold:
                first = pairs(there)
                await entered(hold)
                assert kind(await pairs(there)) == (429, "queue-full")
            assert (await first).status_code in (200, 504)

    run(test)


def test_labels_are_not_taken_to_be_as_slow_as_pairs() -> None:
    """An ITM pair takes twenty times as long as the embedding of a text; of a video it takes longer still."""

    async def test() -> None:
        async with lab(request_timeout_seconds=60) as there:
            seen(there, 1.0)
            with there.heads.held() as hold:
                first = pairs(there, num_texts=10)  # 30 s
                await entered(hold)
                labels = there.begin("/classify", label=TEXTS)
                await waiting(there.service, 10)
                assert kind(await pairs(there, num_images=1, num_texts=25)) == (429, "queue-full")
            assert [(await one).status_code for one in (first, labels)] == [200, 200]
            assert not there.admission.ledger.unfinished

    run(test)


def test_one_key_has_half_of_the_time_at_most() -> None:
    async def test() -> None:
        async with lab(api_keys="first,second") as there:
            seen(there, 1.0)
            body = {"image": b64(RED), "text": TEXTS[:20], "head": "itm"}

            async def ask(key: str) -> httpx.Response:
                return await there.client.post("/match", json=body, headers={"X-API-Key": key})

            with there.heads.held() as hold:
                begun = asyncio.create_task(ask("first"))
                await entered(hold)
                assert kind(await ask("first")) == (429, "queue-full")
                other = asyncio.create_task(ask("second"))
                await waiting(there.service, 20)
            assert [(await one).status_code for one in (begun, other)] == [200, 200]

    run(test)


# --- the ledger ---


def test_a_lease_gives_back_all_that_it_holds() -> None:
    ledger = Ledger(1000)
    with ledger.lease() as lease:
        lease.key = 1
        lease.add_body(100)
        lease.take_on({ITM: 3, Kind("tower", Op.ENCODE): 0})
        lease.submit(ITM)
        lease.finish(ITM, 1)
        with lease.answer(50) as read:
            read(20)
            assert (ledger.bytes, ledger.answer_bytes) == (130, 30)
        assert (ledger.unfinished, ledger.of_key(1), lease.will_submit) == ({ITM: 2}, {ITM: 2}, True)
    assert (ledger.bytes, ledger.answer_bytes, ledger.unfinished, ledger.of_key(1)) == (0, 0, {}, {})


def test_what_alone_is_too_much_is_told_apart_from_what_is_too_much_now() -> None:
    ledger = Ledger(1000)
    with ledger.lease() as other, ledger.lease() as lease:
        other.add_body(500)
        lease.add_body(300)
        with pytest.raises(BytesFullError):
            lease.add_body(300)
        with pytest.raises(TooManyBytesError, match="more than 1000 bytes"):
            lease.add_body(800)
        with pytest.raises(BytesFullError), lease.pixels(0, answer_bytes=300):
            pass
        with pytest.raises(TooManyBytesError), lease.pixels(0, answer_bytes=800):
            pass
        assert ledger.bytes == 800


def test_what_is_promised_counts_for_its_own_request_alone() -> None:
    ledger = Ledger(1000)
    with ledger.lease() as other, ledger.lease() as lease:
        lease.promise(600)
        other.add_body(500)
        lease.add_body(400)
        lease.promise(400)
        with pytest.raises(TooManyBytesError):
            lease.promise(1)


def test_what_need_not_be_done_is_not_waited_for() -> None:
    ledger = Ledger(1000)
    with ledger.lease() as lease:
        lease.expect()
        assert lease.will_submit
        lease.take_on({ITM: 2})
        lease.submit(ITM)
        lease.finish(ITM, 2)
        assert not lease.will_submit
