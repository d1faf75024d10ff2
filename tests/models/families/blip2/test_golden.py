"""Promise 8, as the authors computed it: BLIP-2 against the outputs of LAVIS, below HTTP."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from models.base import Checkpoint, ServedModel, Task
from models.families.blip2.qformer import beside_queries
from models.generation.kv_cache import Cache
from models.inputs import (
    CaptionInput,
    GenerationSettings,
    ImageEmbeddingInput,
    Input,
    PairInput,
    QuestionInput,
    TextInput,
    Turn,
)
from models.layers.attention import padding_mask
from models.runners.text import pad
from tests import golden
from tests.models import asking

KINDS = {
    "opt": "opt",
    "opt-old": "opt",
    "opt-cut": "opt",
    "t5": "t5",
    "t5-old": "t5",
}  # served model -> kind of golden cases
MATCHING = ("opt", "opt-old")
GOLDEN: dict[str, Any] = golden.blip2()
ITM = GOLDEN["itm"]


def cases(field: str) -> list[Any]:
    """Every case of a field, for each served model that has its kind and its length of prompts."""
    return [
        pytest.param(model, case, id=f"{model}-{case['image']}-{number}")
        for model, kind in KINDS.items()
        for number, case in enumerate(GOLDEN[kind][field])
        if (kind == "opt" and was_cut(case)) == (model == "opt-cut")
    ]


def was_cut(case: dict[str, Any]) -> bool:
    """Whether LAVIS left out the end of OPT's prompt. (T5's it never cuts.)"""
    return case["max_txt_len"] == 32 and case["prompt"] in CUT


CUT = {case["prompt"] for case in GOLDEN["opt"]["cases"] if case["prompt_truncated_from"] is not None}


def checkpoint_of(served2: dict[str, ServedModel], model: str, task: Task = Task.CAPTION) -> Checkpoint:
    return served2[model].checkpoints[task]


def request_of(kind: str, case: dict[str, Any]) -> Input:
    settings = GenerationSettings(**golden.blip2_settings(kind, case))
    if case["api"] == "generate":
        return CaptionInput(case["sample_text"], settings)
    return QuestionInput(case["sample_text"], template=case["kwargs"].get("prompt", "{}"), settings=settings)


def prompt_ids(item: Any, kind: str) -> list[int]:
    return list(item.payload.how.prompt if kind == "opt" else item.payload.ids)


@pytest.mark.parametrize("model", KINDS)
def test_query_outputs_and_projections(served2: dict[str, ServedModel], model: str) -> None:
    checkpoint = checkpoint_of(served2, model)
    net = asking.network(checkpoint)
    for name, expected in GOLDEN[KINDS[model]]["images"].items():
        states = net.qformer(net.qformer.look_at(asking.states(checkpoint, name)))
        torch.testing.assert_close(states[0], torch.tensor(expected["query_output"]), atol=5e-5, rtol=0)
        projected = net.projection(states)[0]
        torch.testing.assert_close(projected, torch.tensor(expected["language_projection"]), atol=5e-5, rtol=0)


@pytest.mark.parametrize(("model", "case"), cases("lm_inputs"))
def test_what_the_language_model_reads(served2: dict[str, ServedModel], model: str, case: dict[str, Any]) -> None:
    checkpoint = checkpoint_of(served2, model)
    item = asking.item(checkpoint, case["image"], CaptionInput(case["prompt"]))
    ids = prompt_ids(item, KINDS[model])
    heads: Any = checkpoint.heads
    embedded = torch.cat([heads.queries([item])[0], heads.network.language_model.tokens(torch.tensor(ids))])
    torch.testing.assert_close(embedded, torch.tensor(case["inputs_embeds"]), atol=5e-5, rtol=0)
    assert case["attention_mask"] == [1] * len(embedded)


@pytest.mark.parametrize(("model", "case"), cases("first_step_logits"))
def test_first_logits(served2: dict[str, ServedModel], model: str, case: dict[str, Any]) -> None:
    checkpoint = checkpoint_of(served2, model)
    heads: Any = checkpoint.heads
    item = asking.item(checkpoint, case["image"], CaptionInput(case["prompt"]))
    prompt = item.payload.how.prompt
    logits = heads.decode(Cache(heads.prefill([item]), [1]).step([prompt[-1:]], [len(prompt) - 1]))
    assert logits[0].topk(5).indices.tolist() == case["top5_ids"]
    np.testing.assert_allclose(logits[0, case["top5_ids"]], case["top5_logits"], atol=5e-5)
    if "logits" in case:
        np.testing.assert_allclose(logits[0, : len(case["logits"])], case["logits"], atol=5e-5)


@pytest.mark.parametrize(("model", "case"), cases("cases"))
def test_texts(served2: dict[str, ServedModel], model: str, case: dict[str, Any]) -> None:
    checkpoint = checkpoint_of(served2, model)
    item = asking.item(checkpoint, case["image"], request_of(KINDS[model], case))
    assert prompt_ids(item, KINDS[model]) == case["prompt_ids"]
    sequences = asking.generate(checkpoint, [item])[0].sequences
    texts, ids = case["text"], case["new_token_ids"]
    assert [one.text for one in sequences] == (texts if isinstance(texts, list) else [texts])
    assert [one.num_tokens for one in sequences] == [len(one) for one in (ids if isinstance(ids[0], list) else [ids])]


@pytest.mark.parametrize("model", ["opt", "t5"])
def test_earlier_turns_are_written_as_in_the_dialogues_of_lavis(served2: dict[str, ServedModel], model: str) -> None:
    heads = checkpoint_of(served2, model).heads
    dialogues = {
        case["sample_text"]: case["prompt_ids"]
        for case in GOLDEN[KINDS[model]]["cases"]
        if (case["sample_text"] or "").count("Question:") > 1 and not was_cut(case)
    }
    assert len(dialogues) > 3
    for prompt, ids in dialogues.items():
        *turns, last = prompt.removeprefix("Question: ").split(" Question: ")
        history = tuple(Turn(*turn.removesuffix(".").split(" Answer: ")) for turn in turns)
        item = heads.prepare(QuestionInput(last.removesuffix(" Answer:"), history))
        assert prompt_ids(item, KINDS[model]) == ids
        assert item.history_used == len(history)


@pytest.mark.parametrize("model", ["opt", "t5"])
def test_questions_in_one_batch(served2: dict[str, ServedModel], model: str) -> None:
    expected, checkpoint = GOLDEN[KINDS[model]]["batched_vqa"], checkpoint_of(served2, model)
    items = [
        asking.item(checkpoint, image, QuestionInput(question, template=expected["prompt"]))
        for image, question in zip(expected["images"], expected["questions"], strict=True)
    ]
    assert [one.sequences[0].text for one in asking.generate(checkpoint, items)] == expected["texts"]


# --- matching ---


@pytest.fixture(params=MATCHING)
def itm(served2: dict[str, ServedModel], request: pytest.FixtureRequest) -> Checkpoint:
    return checkpoint_of(served2, request.param, Task.MATCH)


@pytest.mark.parametrize("name", ITM["images"])
def test_images(itm: Checkpoint, name: str) -> None:
    expected, net = ITM["images"][name], asking.network(itm)
    states = asking.states(itm, name)
    torch.testing.assert_close(states[0], torch.tensor(expected["ln_vision"]), atol=2e-5, rtol=0)
    outputs = net.qformer(net.qformer.look_at(states))[0]
    torch.testing.assert_close(outputs, torch.tensor(expected["query_output"]), atol=5e-5, rtol=0)
    (vectors,) = asking.score(itm, [asking.item(itm, name, ImageEmbeddingInput())])
    np.testing.assert_allclose(vectors, expected["image_embeds_proj"], atol=5e-6)
    (mean,) = asking.score(itm, [asking.item(itm, name, ImageEmbeddingInput("mean"))])
    average = np.mean(expected["image_embeds_proj"], axis=0, keepdims=True)
    np.testing.assert_allclose(mean, average / np.linalg.norm(average), atol=5e-6)


@pytest.mark.parametrize("name", ITM["texts"])
def test_texts_alone(itm: Checkpoint, name: str) -> None:
    expected = ITM["texts"][name]
    item = itm.heads.prepare(TextInput(expected["text"]))
    assert item.payload == expected["input_ids_max32"]
    (vectors,) = asking.score(itm, [item])
    np.testing.assert_allclose(vectors, [expected["text_feat_itc"]], atol=5e-6)


def test_pairs(itm: Checkpoint) -> None:
    for pair in ITM["pairs"]:
        text = ITM["texts"][pair["text"]]["text"]
        (logits,) = asking.score(itm, [asking.item(itm, pair["image"], PairInput(text))])
        np.testing.assert_allclose(logits, pair["itm_logits"], atol=2e-5)
        assert softmax(logits)[1] == pytest.approx(pair["itm_prob_match"], abs=5e-6)
        assert similarity(itm, pair["image"], text) == pytest.approx(pair["itc_sim"], abs=5e-6)


@pytest.mark.parametrize("case", ITM["multimodal"], ids=lambda case: case["image"])
def test_grounded_texts(itm: Checkpoint, case: dict[str, Any]) -> None:
    net, expected = asking.network(itm), torch.tensor(case["multimodal_embeds"])
    ids, mask = pad([ITM["texts"][case["text"]]["input_ids_max32"]], torch.device("cpu"))
    states = net.qformer(
        net.qformer.look_at(asking.states(itm, case["image"])), ids, beside_queries(mask, len(expected))
    )
    torch.testing.assert_close(states[0, : len(expected)], expected, atol=2e-5, rtol=0)
    assert not torch.allclose(net.qformer(None, ids, padding_mask(mask))[0, 0], states[0, len(expected)], atol=0.1)


def test_retrieval(itm: Checkpoint) -> None:
    """Scores of what LAVIS re-ranks. It reads up to 35 tokens there: leave out the text that 32 would cut."""
    expected = ITM["retrieval"]
    compared = 0
    for number, image in enumerate(expected["images"]):
        for name, *scores in zip(
            expected["texts"],
            expected["score_matrix_i2t"][number],
            [row[number] for row in expected["score_matrix_t2i"]],
            strict=True,
        ):
            text = ITM["texts"][name]
            for score in scores:
                if score == expected["not_reranked_fill"] or text["n_tokens_untruncated"] > 32:
                    continue
                (logits,) = asking.score(itm, [asking.item(itm, image, PairInput(text["text"]))])
                assert logits[1] + similarity(itm, image, text["text"]) == pytest.approx(score, abs=3e-5)
                compared += 1
    assert compared > 20


def similarity(itm: Checkpoint, image: str, text: str) -> float:
    """The best of the queries."""
    (vectors,) = asking.score(itm, [asking.item(itm, image, ImageEmbeddingInput())])
    (vector,) = asking.score(itm, [itm.heads.prepare(TextInput(text))])
    return float((vectors @ vector.T).max())


def softmax(logits: Any) -> Any:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()
