"""The demo model in each dtype: the answers to many requests at once against one at a time, and against fp32."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx

from bench.client import connected
from bench.service import running_service
from training.questions import random_question
from training.scenes import png, random_scene

DTYPES = ("fp32", "bf16", "int8")
Request = dict[str, Any]


def requests(count: int, seed: int = 0) -> list[Request]:
    """Captions, questions and matches about pictures that the demo knows; of matches the scores are compared."""
    generator = random.Random(seed)
    scenes = [random_scene(generator, 1 + place % 3) for place in range(count // 4)]
    made = []
    for place in range(count):
        scene, pixels = generator.choice(scenes)
        files = {"image": ("image.png", png(pixels), "image/png")}
        task = ("caption", "vqa", "vqa", "match")[place % 4]
        data: dict[str, Any] = {"num_beams": generator.choice((1, 3))} if task != "match" else {"text": "a red circle"}
        if task == "vqa":
            data["question"] = [random_question(generator, scene)[0] for _ in range(generator.randint(1, 3))]
        made.append({"url": f"/{task}", "files": files, "data": data})
    return made


def texts_of(body: dict[str, Any]) -> list[str]:
    captions = [caption["text"] for caption in body.get("captions", ())]
    return captions + [answer["answer"] for answer in body.get("answers", ())]


def scores_of(body: dict[str, Any]) -> list[float]:
    return [score[head] for row in body.get("scores", ()) for score in row for head in ("itm", "itc")]


def compare(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> dict[str, Any]:
    pairs = [
        pair
        for one, two in zip(expected, found, strict=True)
        for pair in zip(texts_of(one), texts_of(two), strict=True)
    ]
    scores = [
        abs(a - b)
        for one, two in zip(expected, found, strict=True)
        for a, b in zip(scores_of(one), scores_of(two), strict=True)
    ]
    equal = sum(one == two for one, two in pairs)
    return {"texts": len(pairs), "equal": equal / len(pairs), "largest_score_difference": max(scores, default=0.0)}


async def ask_all(url: str, asked: list[Request], at_once: bool) -> list[dict[str, Any]]:
    async with connected(url) as client:
        if at_once:
            responses = await asyncio.gather(*(client.post(**request) for request in asked))
        else:
            responses = [await client.post(**request) for request in asked]
    return [response.raise_for_status().json() for response in responses]


def measure(count: int, tick: Callable[[], object] = bool, dtypes: Sequence[str] = DTYPES) -> Iterator[dict[str, Any]]:
    """A row for each dtype, fp32 first."""
    asked = requests(count)
    exact: list[dict[str, Any]] = []
    for dtype in dtypes:
        try:
            with running_service(
                profile="demo-shapes", dtype=dtype, request_timeout_seconds=300, stuck_seconds=600
            ) as service:
                alone = asyncio.run(ask_all(service.url, asked, at_once=False))
                found = asyncio.run(ask_all(service.url, asked, at_once=True))
            exact = alone if dtype == "fp32" else exact
            equal_to_fp32 = compare(exact, alone)["equal"] if exact else None
            yield {"dtype": dtype, "requests": count, "equal_to_fp32": equal_to_fp32} | compare(alone, found)
        except (RuntimeError, httpx.HTTPError) as error:
            yield {"dtype": dtype, "failure": str(error)}
        tick()
