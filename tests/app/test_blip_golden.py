"""Promise 8, as the authors computed it: every golden case of BLIP over HTTP, all of them at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests import golden
from tests.app.support import Asking, asking, b64


@pytest.fixture(scope="module")
def served() -> Iterator[Asking]:
    with asking("golden", golden.CATALOG) as served:
        yield served


def image(name: str) -> str:
    return b64(golden.image_file(name).read_bytes())


def test_captions_with_every_prompt_greedy_and_beams(served: Asking) -> None:
    cases = golden.cases("caption_generate")
    bodies = [
        {
            "model": golden.SERVED[case["checkpoint"]],
            "image": image(case["image"]),
            "prompt": case["prompt"],
            "num_beams": case["num_beams"],
            "repetition_penalty": case["repetition_penalty"],
            **golden.new_tokens(case),
        }
        for case in cases
    ]
    captions = [answer["captions"][0] for answer in served.ask("/caption", bodies)]
    assert len(cases) == 108
    assert [caption["text"] for caption in captions] == [case["caption"].strip() for case in cases]
    greedy = [(caption, case) for caption, case in zip(captions, cases, strict=True) if "token_logprobs" in case]
    assert [caption["confidence"] for caption, _ in greedy] == pytest.approx(
        [math.exp(np.mean(case["token_logprobs"])) for _, case in greedy], abs=1e-5
    )


def test_the_authors_defaults_are_ours(served: Asking) -> None:
    batched = golden.one("caption_generate_batched")
    bodies = [{"model": "blip", "images": [image(name) for name in batched["images"]]}]
    (answer,) = served.ask("/caption", bodies)
    assert [caption["text"] for caption in answer["captions"]] == batched["captions"]


@pytest.mark.parametrize("num_beams", [3, 1])
def test_answers(served: Asking, num_beams: int) -> None:
    cases = golden.cases("vqa_generate")
    bodies = [
        {
            "image": image(case["image"]),
            "question": case["question"],
            "num_beams": num_beams,
            "max_new_tokens": case["max_length"] - 1,
            "min_new_tokens": 0,
        }
        for case in cases
    ]
    answers = [answer["answers"][0]["answer"] for answer in served.ask("/vqa", bodies)]
    assert len(cases) == 42
    assert answers == [(case["answer"] if num_beams == 3 else case["greedy"]["answer"]).strip() for case in cases]


def test_ranked_answers(served: Asking) -> None:
    candidates = golden.one("vqa_answer_list")["answers"]
    cases = [case for case in golden.cases("vqa_rank") if not case["topk_boundary_tied"]]
    bodies = [
        {
            "image": image(case["image"]),
            "question": case["question"],
            "candidates": candidates,
            "rank_k": case["k_test"],
        }
        for case in cases
    ]
    assert len(cases) == 89
    for case, body in zip(cases, served.ask("/vqa", bodies), strict=True):
        (answer,) = body["answers"]
        assert answer["answer"] == case["answer"]
        likelihoods = np.exp(case["candidate_score"])
        expected = dict.fromkeys(candidates, 0.0)
        expected |= zip(
            (candidates[index] for index in case["candidate_indices"]), likelihoods / likelihoods.sum(), strict=True
        )
        ours = {one["answer"]: one["probability"] for one in answer["candidates"]}
        assert ours == pytest.approx(expected, abs=1e-4)


def test_matching(served: Asking) -> None:
    cases = golden.cases("itm")
    bodies = [{"image": image(case["image"]), "text": case["text"]} for case in cases]
    assert len(cases) == 48
    for case, body in zip(cases, served.ask("/match", bodies), strict=True):
        scores = body["scores"][0][0]
        assert scores["itm_logits"] == pytest.approx(case["enc_logits"], abs=1e-4)
        assert scores["itm"] == pytest.approx(case["enc_prob_match"], abs=1e-5)
        assert scores["itc"] == pytest.approx(case["itc_cosine"], abs=2e-5)


def test_embeddings(served: Asking) -> None:
    itc = golden.one("itc")
    body = {"images": [image(name) for name in itc["images"]], "text": itc["texts"]}
    (answer,) = served.ask("/embed", [body])
    for kind, features in (("images", "image_features"), ("texts", "text_features")):
        ours = [one["embedding"] for one in answer[kind]]
        np.testing.assert_allclose(ours, itc[features], atol=2e-5)


def test_retrieval(served: Asking) -> None:
    """`evaluation` of train_retrieval.py: match logit + cosine of the best k, in both directions."""
    retrieval = golden.one("retrieval_eval")
    body = {"images": [image(name) for name in retrieval["images"]], "text": retrieval["texts_pre_caption30"]}
    (answer,) = served.ask("/match", [body])
    scores = np.array([[pair["sum"] for pair in row] for row in answer["scores"]])
    for run in retrieval["runs"]:
        for ours, expected in ((scores, run["score_matrix_i2t"]), (scores.T, run["score_matrix_t2i"])):
            kept = np.array(expected) != -100
            np.testing.assert_allclose(ours[kept], np.array(expected)[kept], atol=2e-4)
            assert kept.sum() == run["k_test"] * len(ours)


def test_two_stage_ranking(served: Asking) -> None:
    """The same matrices, row by row, as /rerank ranks: ITC chooses the best k, which ITM scores; else -100."""
    retrieval = golden.one("retrieval_eval")
    images, texts = [image(name) for name in retrieval["images"]], retrieval["texts_pre_caption30"]
    for run in retrieval["runs"]:
        how = {"score": "sum", "prefilter": run["k_test"]}
        texts_of = [{"query": {"image": one}, "documents": texts, **how} for one in images]
        images_of = [{"query": one, "documents": [{"image": each} for each in images], **how} for one in texts]
        for bodies, expected in ((texts_of, run["score_matrix_i2t"]), (images_of, run["score_matrix_t2i"])):
            ours = np.array([in_order(answer["results"]) for answer in served.ask("/rerank", bodies)])
            np.testing.assert_allclose(ours, np.array(expected), atol=2e-4)


def in_order(results: list[dict[str, Any]]) -> list[float]:
    return [one["relevance_score"] for one in sorted(results, key=lambda one: one["index"])]


def test_likelihoods(served: Asking) -> None:
    """The mean over what follows the authors' prompt, of the log-probabilities that their logits give."""
    cases = golden.cases("caption_teacher_forced")
    bodies = [
        {
            "model": golden.SERVED[case["checkpoint"]],
            "image": image(case["image"]),
            "text": case["text"].removeprefix("a picture of "),
            "head": "lm",
        }
        for case in cases
        if case["checkpoint"] == "caption"
    ]
    expected = [
        np.mean(case["target_logprobs"][case["prompt_length_masked"] - 1 :])
        for case in cases
        if case["checkpoint"] == "caption"
    ]
    assert len(bodies) == 8
    scores = [answer["scores"][0][0]["lm"] for answer in served.ask("/match", bodies)]
    assert scores == pytest.approx(expected, abs=1e-5)


def test_features(served: Asking) -> None:
    """`BLIP_Base` of models/blip.py: the first row of each mode."""
    cases = golden.cases("feature_extractor")
    for space, kind in (("image", "images"), ("text", "texts"), ("multimodal", "pairs")):
        bodies = [
            {"space": space}
            | ({"image": image(case["image"])} if space != "text" else {})
            | ({"text": case["text"]} if space != "image" else {})
            for case in cases
        ]
        for case, answer in zip(cases, served.ask("/embed", bodies), strict=True):
            np.testing.assert_allclose(answer[kind][0]["embedding"], case[f"{space}_row0"], atol=1e-5)


def test_a_video(served: Asking) -> None:
    """eval_retrieval_video.py, from what /embed says of each frame. ITM: tests/models/runners/test_more.py."""
    names = [f"s{number}" for number in (0, 1, 2, 3, 4, 5, 0, 1)]
    known = {case["image"].partition("_")[0]: case["image"] for case in golden.cases("itm")}
    frames = [image(known[name]) for name in names]
    (single,) = served.ask("/embed", [{"images": frames, "space": "image"}])
    (video,) = served.ask("/embed", [{"images": frames, "video": True}])
    state = np.mean([one["embedding"] for one in single["images"]], axis=0)
    weights = load_file(golden.BLIP / "checkpoints" / "retrieval" / "model.safetensors")
    projected = weights["vision_proj.weight"] @ state + weights["vision_proj.bias"]
    np.testing.assert_allclose(video["images"][0]["embedding"], projected / np.linalg.norm(projected), atol=1e-5)
