"""Sections: whether the device computes what it should. The golden cases of the authors' code, alone and all in one
batch, in each dtype; the tests of them over HTTP; and the demo's answers over HTTP."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import answers
from bench.gpu.setup import Row, Setup
from models.base import Checkpoint, Item, ServedModel, Task
from models.device import DTYPES
from models.inputs import (
    CaptionInput,
    GenerationSettings,
    ImageEmbeddingInput,
    PairInput,
    QuestionInput,
    Sampling,
    TextInput,
)
from models.loader import load
from tests import golden
from tests.models import asking

TESTS = ("tests/app/test_blip_golden.py", "tests/app/test_blip2_golden.py")
BATCH = 64  # cases at once
Ask = Callable[[Checkpoint, Sequence[Item]], list[Any]]


class Cases(NamedTuple):
    """Cases of one checkpoint that can share a batch: the items, and what the authors' code answers."""

    name: str
    checkpoint: Checkpoint
    items: list[Item]
    expected: list[Any]  # texts, or arrays; None: there is only "together equals alone"


# --- the golden cases, below HTTP ---


def golden_cases(setup: Setup, dtype: str) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        for profile, catalog in (("golden", golden.CATALOG), ("golden2", golden.blip2_catalog(Path(folder)))):
            how = {"device": str(setup.device), "dtype": dtype, "threads": 1}
            served = {model.name: model for model in load(profile, catalog=catalog, **how)}  # type: ignore[arg-type]
            for cases in (blip if profile == "golden" else blip2)(served, setup.scale.every):
                yield compare(cases, dtype)


def compare(cases: Cases, dtype: str) -> Row:
    is_text = cases.items[0].op.value == "generate"
    ask: Ask = texts_of if is_text else asking.score
    alone = [ask(cases.checkpoint, [item])[0] for item in cases.items]
    together = [
        answer
        for start in range(0, len(cases.items), BATCH)
        for answer in ask(cases.checkpoint, cases.items[start : start + BATCH])
    ]
    figures = equality if is_text else differences
    row: Row = {"dtype": dtype, "cases": cases.name, "number": len(alone)}
    row["together and alone"] = figures(together, alone)
    if cases.expected[0] is not None:
        row["alone and the authors"] = figures(alone, cases.expected)
        row["together and the authors"] = figures(together, cases.expected)
    return row


def texts_of(checkpoint: Checkpoint, items: Sequence[Item]) -> list[str]:
    return [answer.sequences[0].text for answer in asking.generate(checkpoint, items)]


def equality(ours: Sequence[str], theirs: Sequence[str]) -> str:
    equal = sum(one == two for one, two in zip(ours, theirs, strict=True))
    return f"{equal} of {len(theirs)} texts"


def differences(ours: Sequence[Any], theirs: Sequence[Any]) -> str:
    """The largest one. NaN is told, and is no difference."""
    largest = max(float(np.abs(np.asarray(one) - np.asarray(two)).max()) for one, two in zip(ours, theirs, strict=True))
    return f"{largest:.1e} at most"


def blip(served: dict[str, ServedModel], every: int) -> Iterator[Cases]:
    for name, slot in (("caption", "blip"), ("caption_wide", "wide")):
        checkpoint = served[slot].checkpoints[Task.CAPTION]
        cases = [case for case in golden.cases("caption_generate") if case["checkpoint"] == name][::every]
        items = [asking.item(checkpoint, case["image"], CaptionInput(case["prompt"], settings(case))) for case in cases]
        yield Cases(f"BLIP {name}", checkpoint, items, [case["caption"].strip() for case in cases])
    yield sampled(served["blip"].checkpoints[Task.CAPTION], every)
    checkpoint, cases = served["blip"].checkpoints[Task.VQA], golden.cases("vqa_generate")[::every]
    for beams in (3, 1):
        items = [
            asking.item(checkpoint, case["image"], QuestionInput(case["question"], settings=answering(case, beams)))
            for case in cases
        ]
        expected = [(case["answer"] if beams == 3 else case["greedy"]["answer"]).strip() for case in cases]
        yield Cases(f"BLIP answers, {beams} beam(s)", checkpoint, items, expected)
    checkpoint, cases = served["blip"].checkpoints[Task.MATCH], golden.cases("itm")[::every]
    items = [asking.item(checkpoint, case["image"], PairInput(case["text"])) for case in cases]
    yield Cases("BLIP ITM logits", checkpoint, items, [case["enc_logits"] for case in cases])
    yield from embeddings("BLIP", checkpoint, cases)


def settings(case: dict[str, Any]) -> GenerationSettings:
    return GenerationSettings(
        num_beams=case["num_beams"], repetition_penalty=case["repetition_penalty"], **golden.new_tokens(case)
    )


def answering(case: dict[str, Any], beams: int) -> GenerationSettings:
    return GenerationSettings(num_beams=beams, max_new_tokens=case["max_length"] - 1)


def sampled(checkpoint: Checkpoint, every: int) -> Cases:
    """The draws of a seed, whatever else is in the batch."""
    images = [case["image"] for case in golden.cases("caption_generate")][::every]
    items = [
        asking.item(checkpoint, image, CaptionInput(None, GenerationSettings(sampling=Sampling(seed=seed))))
        for seed, image in enumerate(images)
    ]
    return Cases("BLIP captions, sampled", checkpoint, items, [None] * len(items))


def embeddings(family: str, checkpoint: Checkpoint, cases: list[dict[str, Any]]) -> Iterator[Cases]:
    images = [asking.item(checkpoint, case["image"], ImageEmbeddingInput()) for case in cases]
    yield Cases(f"{family} images", checkpoint, images, [None] * len(images))
    texts = [checkpoint.heads.prepare(TextInput(case["text"])) for case in cases]
    yield Cases(f"{family} texts", checkpoint, texts, [None] * len(texts))


def blip2(served: dict[str, ServedModel], every: int) -> Iterator[Cases]:
    known = golden.blip2()
    for kind in ("opt", "t5"):
        checkpoint = served[kind].checkpoints[Task.CAPTION]
        cut = {case["prompt"] for case in known[kind]["cases"] if case["prompt_truncated_from"] is not None}
        cases = [case for case in known[kind]["cases"] if case["prompt"] not in cut][::every]
        items = [asking.item(checkpoint, case["image"], asked(kind, case)) for case in cases]
        expected = [case["text"][0] if isinstance(case["text"], list) else case["text"] for case in cases]
        yield Cases(f"BLIP-2 {kind} captions and answers", checkpoint, items, expected)
    checkpoint, itm = served["opt"].checkpoints[Task.MATCH], known["itm"]
    pairs = [pair | {"text": itm["texts"][pair["text"]]["text"]} for pair in itm["pairs"]][::every]
    items = [asking.item(checkpoint, pair["image"], PairInput(pair["text"])) for pair in pairs]
    yield Cases("BLIP-2 ITM logits", checkpoint, items, [pair["itm_logits"] for pair in pairs])
    yield from embeddings("BLIP-2", checkpoint, pairs)


def asked(kind: str, case: dict[str, Any]) -> CaptionInput | QuestionInput:
    how = GenerationSettings(**golden.blip2_settings(kind, case))
    if case["api"] == "generate":
        return CaptionInput(case["sample_text"], how)
    return QuestionInput(case["sample_text"], template=case["kwargs"].get("prompt", "{}"), settings=how)


# --- over HTTP ---


def tests(setup: Setup) -> Iterator[Row]:
    """The project's own tests of the golden cases: the service in fp32, all cases at once."""
    chosen = ["-k", setup.scale.only_tests] if setup.scale.only_tests else []
    command = [sys.executable, "-m", "pytest", *TESTS, *chosen, "-W", "ignore", "-p", "no:cacheprovider", "--tb=short"]
    environment = os.environ | {golden.DEVICE_VARIABLE: str(setup.device)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or [done.stderr.strip()])[-1]
    row: Row = {"tests": " ".join(TESTS), "is": re.sub(r"^=+ | =+$", "", last)}
    if done.returncode:
        row["failure"] = done.stdout[-6000:]
    yield row


def demo(setup: Setup) -> Iterator[Row]:
    """The real process with the demo model, in each dtype: many requests at once against one at a time."""
    yield from answers.measure(setup.scale.demo_requests, dtypes=tuple(DTYPES))
