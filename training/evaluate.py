"""`make eval`: start the real service, send it the public easy-VQA test split and held-out generated scenes over
HTTP, print a table, and fail if a goal is missed or a request failed: `python -m training.evaluate`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx
from tqdm import tqdm

from bench.service import running_service
from training import easyvqa
from training.asking import Client, Tally
from training.captions import SHORT_CAPTIONS, describe, entails, random_caption, spoil
from training.dialogues import needing_the_turn_before
from training.questions import Question, random_question
from training.scenes import Scene, png, random_scene
from training.things import evaluate as things
from training.things.pictures import PicturesError

HELD_OUT_SEED = "held-out evaluation"  # no phase of training draws from it
GOALS = {  # by family
    "blip": {
        "VQA: public questions": 0.99,
        "caption: color and shape": 0.99,
        "caption: whole": 0.95,
        "ITM: the true caption before another": 0.99,
        "ITM: the right one of 24": 0.98,
        "ITC: the right one of 24": 0.98,
    },
    "blip2": {
        "VQA: public questions": 0.97,
        "caption: color and shape": 0.98,
        "ITM: the true caption before another": 0.98,
        "ITC: the right one of 24": 0.95,
        "dialogue: second turn": 0.90,
        "dialogue: third turn": 0.90,
    },
}


@dataclass(frozen=True, slots=True)
class Case:
    """One picture, as a file, with all that is asked about it. `name` is the set it belongs to."""

    name: str
    picture: bytes
    scene: Scene
    questions: tuple[Question, ...]
    other: str  # a caption that is false of the scene
    dialogue: tuple[Question, ...] = ()  # three turns, each of which needs the one before


def public_cases(number: int) -> list[Case]:
    """The first `number` pictures of the public test split; the other caption is that of another picture."""
    examples = easyvqa.load("test")
    rng = Random(HELD_OUT_SEED)
    captions = [str(describe(example.scene)) for example in examples]
    cases = []
    for example in examples[:number]:
        other = rng.choice([caption for caption in captions if not entails(caption, example.scene)])
        cases.append(Case("public", example.path.read_bytes(), example.scene, example.questions, other))
    return cases


def generated_cases(number: int) -> list[Case]:
    """Scenes of one, two and three shapes in turn, ten questions each; the other caption is a true one with one word
    changed."""
    rng = Random(HELD_OUT_SEED)
    cases: list[Case] = []
    while len(cases) < number:
        count = 1 + len(cases) % 3
        scene, pixels = random_scene(rng, count)
        questions = tuple(dict(random_question(rng, scene) for _ in range(10)).items())
        changed = spoil(rng, describe(scene), scene) or spoil(rng, random_caption(rng, scene), scene)
        if changed is not None:
            name = f"generated, {count} shape{'s' * (count > 1)}"
            dialogue = tuple(needing_the_turn_before(rng, scene) or ())
            cases.append(Case(name, png(pixels), scene, questions, str(changed), dialogue))
    return cases


async def evaluate_caption(client: Client, case: Case, tally: Tally) -> None:
    answer = await client.ask("/caption", case.picture)
    text = answer["captions"][0]["text"] if answer else ""
    if case.name == "public":
        shape = case.scene.shapes[0]
        tally.add("caption: color and shape", f" {shape.name} " in f" {text} ")
        tally.add("caption: size", f" {shape.size} " in f" {text} ")
        tally.add("caption: position", text.endswith(f" at the {shape.position}"))
        tally.add("caption: whole", text == str(describe(case.scene)))
    else:
        tally.add(f"caption: true ({case.name})", entails(text, case.scene))


async def evaluate_questions(client: Client, case: Case, tally: Tally) -> None:
    name = "VQA: public questions" if case.name == "public" else f"VQA: all ({case.name})"
    asked = [question for question, _ in case.questions]
    answer = await client.ask("/vqa", case.picture, question=asked)
    said = [item["answer"] for item in answer["answers"]] if answer else [None] * len(asked)
    for (question, right), text in zip(case.questions, said, strict=True):
        tally.add(name, text == right)
        if case.name != "public" and (topic := topic_of(question)):
            tally.add(f"VQA: {topic} (generated)", text == right)


def topic_of(question: str) -> str | None:
    if "how many" in question:
        return "number"
    if any(relation in question for relation in ("to the left of", "to the right of", "above", "below")):
        return "relation"
    return None


async def evaluate_matching(client: Client, case: Case, tally: Tally) -> None:
    """The caption of the picture, the other one, and for public pictures the 24 short ones."""
    public = case.name == "public"
    texts = [str(describe(case.scene)), case.other, *(SHORT_CAPTIONS if public else ())]
    answer = await client.ask("/match", case.picture, text=texts)
    scores = answer["scores"][0] if answer else [{"itm": 0.0, "itc": 0.0}] * len(texts)
    if not public:
        tally.add(f"ITM: true before one word changed ({case.name})", scores[0]["itm"] > scores[1]["itm"])
        return
    tally.add("ITM: the true caption before another", scores[0]["itm"] > scores[1]["itm"])
    tally.add("ITM: true above 1/2, other below", scores[0]["itm"] > 0.5 > scores[1]["itm"])
    right = SHORT_CAPTIONS.index(f"a {case.scene.shapes[0].name}")
    for head in ("itm", "itc"):
        values = [score[head] for score in scores[2:]]
        tally.add(f"{head.upper()}: the right one of 24", answer is not None and values.index(max(values)) == right)


async def evaluate_dialogue(client: Client, case: Case, tally: Tally) -> None:
    """Three turns; the history holds what the model itself answered."""
    history: list[dict[str, str]] = []
    for (question, right), turn in zip(case.dialogue, ("first", "second", "third"), strict=False):
        answer = await client.ask("/vqa", case.picture, question=question, history=history)
        said = answer["answers"][0]["answer"] if answer else ""
        tally.add(f"dialogue: {turn} turn", said == right)
        history.append({"question": question, "answer": said or "unknown"})


Evaluation = Callable[[Client, Case, Tally], Awaitable[None]]
EVALUATIONS: dict[str, Evaluation] = {
    "caption": evaluate_caption,
    "vqa": evaluate_questions,
    "match": evaluate_matching,
}


async def evaluate(url: str, cases: Sequence[Case], concurrency: int) -> dict[str, Tally]:
    """Print the figures of every served model, and return them."""
    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
        models = (await http.get("/models")).json()["models"]
        if any(map(is_of_things, models)):
            things.downloaded_cases()  # what cannot be had is told before anything is asked
        return {model["name"]: await evaluate_model(http, model, cases, concurrency) for model in models}


def jobs_of(model: Mapping[str, Any], client: Client, cases: Sequence[Case], tally: Tally) -> list[Awaitable[None]]:
    evaluations = [EVALUATIONS[task] for task in EVALUATIONS if task in model["tasks"]]
    jobs = [evaluation(client, case, tally) for evaluation in evaluations for case in cases]
    if model["tasks"].get("vqa", {}).get("history"):
        jobs += [evaluate_dialogue(client, case, tally) for case in cases if case.dialogue]
    return jobs


def is_of_things(model: Mapping[str, Any]) -> bool:
    return bool(model["name"].startswith(things.MODEL_PREFIX))


async def evaluate_model(
    http: httpx.AsyncClient, model: Mapping[str, Any], cases: Sequence[Case], concurrency: int
) -> Tally:
    """A model of things is asked about things; any other about shapes."""
    of_things = is_of_things(model)
    client = Client(http, model["name"], concurrency)
    tally = Tally((things.GOALS if of_things else GOALS).get(model["family"], {}))
    jobs = things.jobs_of(model, client, tally) if of_things else jobs_of(model, client, cases, tally)
    for job in tqdm(asyncio.as_completed(jobs), total=len(jobs), desc=f"eval {model['name']}", unit="job"):
        await job
    print(f"{model['name']} ({model['family']})")
    print(tally.table())
    print(f"{client.requests} requests, {client.failed} failed, {client.postponed} times asked to come back later")
    tally.failed = client.failed
    return tally


def evaluate_dtype(dtype: str, cases: Sequence[Case], concurrency: int, *, int8_head: bool = False) -> dict[str, Tally]:
    """The figures of a service that is started with this dtype."""
    print(f"in {dtype}{', the head in int8' if int8_head else ''}:")
    with running_service(dtype=dtype, int8_head=int8_head) as service:
        return asyncio.run(evaluate(service.url, cases, concurrency))


def is_held(tallies: Mapping[str, Tally], references: Mapping[str, Tally]) -> bool:
    """Print the figures that have lost too much. True if none has."""
    lost = [f"{model}: {line}" for model, tally in tallies.items() for line in tally.below(references[model])]
    print("\n".join(["LOST more than 0.3 points:", *lost]) if lost else "no figure with a goal lost 0.3 points")
    return not lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running service; without it one is started")
    parser.add_argument("--public", type=int, default=1000, help="how many public pictures (default: %(default)s)")
    parser.add_argument("--generated", type=int, default=600, help="how many generated ones (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, default=16, help="requests at a time (default: %(default)s)")
    parser.add_argument("--dtype", default="auto", help="BLIP_DTYPE of the service (default: %(default)s)")
    parser.add_argument(
        "--against",
        help="a dtype that is evaluated too: fail if the other loses 0.3 points (or two answers), not by goals",
    )
    parser.add_argument(
        "--int8-head", action="store_true", help="BLIP_INT8_HEAD, against the same dtype without it, or another"
    )
    options = parser.parse_args()
    if options.int8_head and not options.against:
        options.against = options.dtype
    if options.url and (options.against or options.dtype != "auto"):
        parser.error("a running service has its own dtype")
    try:
        good = evaluate_all(options)
    except PicturesError as error:
        sys.exit(f"the things cannot be drawn: {error}")
    sys.exit(0 if good else 1)


def evaluate_all(options: argparse.Namespace) -> bool:
    cases = public_cases(options.public) + generated_cases(options.generated)
    if options.url:
        tallies = asyncio.run(evaluate(options.url, cases, options.concurrency))
    else:
        tallies = evaluate_dtype(options.dtype, cases, options.concurrency, int8_head=options.int8_head)
    good = all(tally.all_met for tally in tallies.values())
    if options.against:
        good = is_held(tallies, evaluate_dtype(options.against, cases, options.concurrency))
    return good and not any(tally.failed for tally in tallies.values())


if __name__ == "__main__":
    main()
