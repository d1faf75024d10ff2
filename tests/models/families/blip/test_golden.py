"""Promise 8, as the authors computed it: BLIP against the outputs of salesforce/BLIP, below HTTP."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from models.base import Checkpoint, ServedModel, Task
from models.inputs import (
    CaptionInput,
    GenerationSettings,
    ImageEmbeddingInput,
    PairInput,
    QuestionInput,
    RankInput,
    TextInput,
)
from models.layers.attention import causal_mask
from tests import golden
from tests.models import asking

SLOTS = {"caption": Task.CAPTION, "caption_wide": Task.CAPTION, "vqa": Task.VQA, "retrieval": Task.MATCH}


@pytest.fixture(scope="module")
def checkpoints(served: dict[str, ServedModel]) -> dict[str, Checkpoint]:
    return {name: served[golden.SERVED[name]].checkpoints[slot] for name, slot in SLOTS.items()}


def name(case: dict[str, Any]) -> str:
    return "-".join(str(case[key]) for key in ("id", "checkpoint", "image") if key in case)


@pytest.mark.parametrize("case", golden.cases("vision"), ids=name)
def test_image_embeddings(checkpoints: dict[str, Checkpoint], case: dict[str, Any]) -> None:
    ours = asking.states(checkpoints[case["checkpoint"]], case["image"])[0]
    torch.testing.assert_close(ours, golden.array(case["image_embeds"]), atol=2e-5, rtol=0)


@pytest.mark.parametrize("case", golden.cases("caption_teacher_forced"), ids=name)
def test_teacher_forced_logits(checkpoints: dict[str, Checkpoint], case: dict[str, Any]) -> None:
    checkpoint = checkpoints[case["checkpoint"]]
    net, ids = asking.network(checkpoint), torch.tensor([case["decoder_input_ids"]])
    source = net.decoder.look_at(asking.states(checkpoint, case["image"]))
    hidden, _ = net.decoder(ids, causal_mask(torch.ones_like(ids, dtype=torch.bool)), source)
    logits = net.head(hidden, net.decoder.tokens)[0]
    torch.testing.assert_close(logits, golden.array(case["logits"]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", golden.cases("caption_generate"), ids=name)
def test_captions(checkpoints: dict[str, Checkpoint], case: dict[str, Any]) -> None:
    settings = GenerationSettings(
        num_beams=case["num_beams"], repetition_penalty=case["repetition_penalty"], **golden.new_tokens(case)
    )
    checkpoint = checkpoints[case["checkpoint"]]
    item = asking.item(checkpoint, case["image"], CaptionInput(case["prompt"], settings))
    (best,) = asking.generate(checkpoint, [item])[0].sequences
    assert best.text == case["caption"].strip()
    if "token_logprobs" in case:
        assert best.confidence == pytest.approx(math.exp(np.mean(case["token_logprobs"])), abs=1e-5)


@pytest.mark.parametrize("search", ["answer", "greedy"])
@pytest.mark.parametrize("case", golden.cases("vqa_generate"), ids=name)
def test_answers(checkpoints: dict[str, Checkpoint], case: dict[str, Any], search: str) -> None:
    expected = case["answer"] if search == "answer" else case["greedy"]["answer"]
    settings = GenerationSettings(num_beams=3 if search == "answer" else 1, max_new_tokens=case["max_length"] - 1)
    item = asking.item(checkpoints["vqa"], case["image"], QuestionInput(case["question"], settings=settings))
    assert item.payload.ids == case["question_input_ids"]
    assert asking.generate(checkpoints["vqa"], [item])[0].sequences[0].text == expected.strip()


def test_ranked_answers(checkpoints: dict[str, Checkpoint]) -> None:
    candidates = tuple(golden.one("vqa_answer_list")["answers"])
    cases = [case for case in golden.cases("vqa_rank") if not case["topk_boundary_tied"]]
    assert len(cases) > 80
    for case in cases:
        request = RankInput(case["question"], candidates, case["k_test"])
        (ours,) = asking.score(checkpoints["vqa"], [asking.item(checkpoints["vqa"], case["image"], request)])
        expected = np.zeros(len(candidates))
        likelihoods = np.exp(case["candidate_score"])
        expected[case["candidate_indices"]] = likelihoods / likelihoods.sum()
        np.testing.assert_allclose(ours, expected, atol=1e-4)
        assert ours.argmax() == case["answer_index"]


@pytest.mark.parametrize("case", golden.cases("itm"), ids=lambda case: f"{case['image']}-{case['text'][:20]}")
def test_image_text_matching(checkpoints: dict[str, Checkpoint], case: dict[str, Any]) -> None:
    checkpoint = checkpoints["retrieval"]
    (logits,) = asking.score(checkpoint, [asking.item(checkpoint, case["image"], PairInput(case["text"]))])
    np.testing.assert_allclose(logits, case["enc_logits"], atol=1e-4)
    (image,) = asking.score(checkpoint, [asking.item(checkpoint, case["image"], ImageEmbeddingInput())])
    (text,) = asking.score(checkpoint, [checkpoint.heads.prepare(TextInput(case["text"]))])
    assert (image @ text.T).item() == pytest.approx(case["itc_cosine"], abs=2e-5)
