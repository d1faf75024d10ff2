"""What the service promises to many clients at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from app.errors import DrainingError
from models.fake.runner import Call, Fault
from models.inputs import CaptionInput
from tests.app.support import BLUE, GREEN, RED, b64, entered, lab, png, run, until, waiting

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "brown", "black", "white", "gray")


def test_nobody_gets_anothers_answer() -> None:
    """64 requests of all kinds at once: each has the answer that it has alone, and images are encoded once."""

    async def test() -> None:
        images = {colour: png(colour, (40, 30)) for colour in COLOURS}
        requests: list[tuple[str, bytes, dict[str, Any]]] = []
        for number in range(64):
            colour = COLOURS[number % len(COLOURS)]
            kinds: list[tuple[str, dict[str, Any]]] = [
                ("/caption", {"num_captions": 1 + number % 3}),
                ("/vqa", {"question": [f"what color is it{' really' * (number % 7)}?", f"is it {colour}?"]}),
                ("/match", {"text": [f"a {colour} thing", f"text {number}"]}),
                ("/embed", {"text": f"text {number % 5}"}),
            ]
            path, fields = kinds[number % 4]
            requests.append((path, images[colour], fields))
        async with lab() as there:
            alone = [(await there.ask(path, image, **fields)).json() for path, image, fields in requests]
        async with lab() as there:
            with there.tower.held() as hold:
                tasks = [there.begin(path, image, **fields) for path, image, fields in requests]
                await entered(hold)
            together = [(await task).json() for task in tasks]
            assert together == alone
            assert sum(there.tower.sizes("encode")) == len(COLOURS)
            assert max(there.heads.sizes("score", "step")) > 1

    run(test)


def test_an_image_is_encoded_once_across_tasks_and_requests() -> None:
    async def test() -> None:
        async with lab() as there:
            for path in ("/caption", "/vqa", "/match", "/embed", "/caption"):
                await there.ask(path, question=["is it red?"] * 3) if path == "/vqa" else await there.ask(path)
            await there.client.post("/caption", json={"images": [b64(RED)] * 3})
            assert there.tower.sizes("encode") == [1]
            assert there.count("feature_cache_total", result="miss") == 1
            assert there.count("feature_cache_total", result="hit") == 5
            assert there.count("feature_cache_bytes") > 0

    run(test)


def test_burst() -> None:
    """Ten times what fits: answers and refusals, nothing lost, and all of it counted."""

    async def test() -> None:
        async with lab(max_queue_items=8, max_batch_size=4) as there:
            await there.ask("/caption")
            with there.heads.held() as hold:
                first = there.begin("/caption", prompt="first")
                await entered(hold)
                burst = [there.begin("/caption", prompt=f"{number}") for number in range(80)]
                await waiting(there.service, 8)

                async def some_refused() -> bool:
                    return any(task.done() for task in burst)

                late = [there.begin("/caption", prompt=f"late {number}") for number in range(10)]
                await until(some_refused)
            codes = Counter([(await task).status_code for task in (first, *burst, *late)])
            assert set(codes) == {200, 429}
            assert codes.total() == 91
            assert there.count("rejected_total", reason="queue-full") == codes[429]
            assert there.admission.ledger.bytes == 0

    run(test)


def test_one_bad_item_fails_alone() -> None:
    async def test() -> None:
        async with lab() as there:
            await there.ask("/caption")

            def poisoned(call: Call) -> bool:
                return any(payload == CaptionInput("poison") for payload in call.payloads)

            there.heads.fail(Fault.ERROR, poisoned)
            with there.heads.held() as hold:
                first = there.begin("/caption", prompt="first")
                await entered(hold)
                tasks = [there.begin("/caption", prompt=prompt) for prompt in ("a", "poison", "b", "c")]
                await waiting(there.service, 4)
            assert [(await task).status_code for task in tasks] == [200, 500, 200, 200]
            assert (await first).status_code == 200

    run(test)


def test_a_failed_encode_fails_all_who_wait_and_is_not_kept() -> None:
    async def test() -> None:
        async with lab() as there:
            there.tower.fail(Fault.ERROR)
            tasks = [there.begin("/caption", GREEN) for _ in range(3)]
            assert [(await task).status_code for task in tasks] == [500] * 3
            there.tower.heal()
            assert (await there.ask("/caption", GREEN)).status_code == 200

    run(test)


@pytest.mark.parametrize("bad_at", [0, 1, 2])
def test_nothing_is_submitted_when_one_image_is_bad(bad_at: int) -> None:
    async def test() -> None:
        async with lab() as there:
            images = [b64(RED), b64(BLUE)]
            images.insert(bad_at, b64(GREEN[:-30]))
            response = await there.client.post("/caption", json={"images": images})
            assert response.status_code == 422
            await there.ask("/caption", png("gray"))
            assert there.tower.sizes("encode") == [1]

    run(test)


def test_a_bad_image_does_not_harm_who_joined_a_good_one() -> None:
    """Two requests share an image; the one that leads has a bad one beside it."""

    async def test() -> None:
        async with lab() as there:
            good, bad = b64(png("purple", (900, 900))), b64(png("red", (900, 900))[:-30])
            leader = asyncio.create_task(there.client.post("/caption", json={"images": [good, bad]}))
            joined = asyncio.create_task(there.client.post("/caption", json={"images": [good]}))
            assert (await leader).status_code == 422
            assert (await joined).json()["captions"][0]["text"] == "a purple picture"

    run(test)


def test_requests_that_share_images_in_another_order() -> None:
    async def test() -> None:
        async with lab() as there:
            images = [b64(RED), b64(BLUE), b64(GREEN)]
            orders = [images, images[::-1], images[1:] + images[:1]]
            tasks = [asyncio.create_task(there.client.post("/caption", json={"images": order})) for order in orders]
            texts = [[one["text"] for one in (await task).json()["captions"]] for task in tasks]
            assert texts[0] == texts[1][::-1] == texts[2][-1:] + texts[2][:-1]
            assert sum(there.tower.sizes("encode")) == 3

    run(test)


def test_drain_answers_what_it_can_not_complete() -> None:
    async def test() -> None:
        async with lab() as there:
            with there.heads.held() as hold:
                task = there.begin("/caption")
                await entered(hold)
                there.admission.drain()
                there.admission.abort(DrainingError("The service is stopping."))
                response = await task
                assert (response.status_code, response.json()["type"]) == (503, "/errors/draining")

    run(test)
