"""Promise 8, as the authors computed it: every golden case of BLIP-2 over HTTP, all of them at once, for both kinds of
configuration (with and without an image token)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import golden
from tests.app.support import Asking, asking, b64

GOLDEN = json.loads((golden.BLIP2 / "cases_shared.json").read_text())
LANGUAGE_MODELS = {"opt": "opt", "opt-old": "opt", "t5": "t5", "t5-old": "t5"}
DEFAULT_LENGTH = 30  # max_length of `generate`


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    """The catalog, and Flan-T5 without an image token, whose weights would be the same."""
    with asking("golden2", golden.blip2_catalog(tmp_path_factory.mktemp("golden"))) as served:
        yield served


def image(name: str) -> str:
    return b64((golden.BLIP2 / GOLDEN["images"][name]["file"]).read_bytes())


def texts_of(names: list[str]) -> list[str]:
    return [GOLDEN["itm"]["texts"][name]["text"] for name in names]


def cases(language_model: str, api: str) -> list[dict[str, Any]]:
    return [case for case in GOLDEN[language_model]["cases"] if case["api"] == api]


def first(case: dict[str, Any]) -> str:
    """Of several captions the first: the others depend on how an old library stopped."""
    return case["text"][0] if isinstance(case["text"], list) else case["text"]


@pytest.mark.parametrize("model", LANGUAGE_MODELS)
def test_captions_and_what_follows_a_prompt(served: Asking, model: str) -> None:
    known, bodies = cases(LANGUAGE_MODELS[model], "generate"), []
    for case in known:
        options = dict(case["kwargs"])
        counted = 1 if LANGUAGE_MODELS[model] == "opt" else 0  # a start token that the originals' lengths count
        options["max_new_tokens"] = options.pop("max_length", DEFAULT_LENGTH) - counted
        options["min_new_tokens"] = max(options.pop("min_length", 1) - 1, 0)
        options.setdefault("num_beams", 5)
        cut = case["prompt_truncated_from"] is not None
        name = "opt-cut" if cut else model
        bodies.append({"model": name, "image": image(case["image"]), "prompt": case["prompt"], **options})
    answers = served.ask("/caption", bodies)
    assert len(known) > 50
    assert [answer["captions"][0]["text"] for answer in answers] == [first(case) for case in known]


@pytest.mark.parametrize("model", LANGUAGE_MODELS)
def test_answers_with_the_authors_defaults(served: Asking, model: str) -> None:
    known, bodies = cases(LANGUAGE_MODELS[model], "predict_answers"), []
    for case in known:
        options = dict(case["kwargs"])
        template = options.pop("prompt", "{}")
        body = {"model": model, "image": image(case["image"]), "question": case["sample_text"], **options}
        bodies.append(body if template == "Question: {} Answer:" else body | {"template": template})
    answers = served.ask("/vqa", bodies)
    assert len(known) == 28
    assert [answer["answers"][0]["answer"] for answer in answers] == [case["text"] for case in known]


@pytest.mark.parametrize("model", LANGUAGE_MODELS)
def test_a_dialogue_is_the_authors_prompt(served: Asking, model: str) -> None:
    """A golden prompt with an earlier turn, asked as a history."""
    known = [case for case in cases(LANGUAGE_MODELS[model], "generate") if case["prompt"].count("Question:") == 2]
    bodies, expected = [], []
    for case in known:
        if case["kwargs"].get("repetition_penalty") or case["prompt_truncated_from"]:
            continue
        told, asked = case["prompt"].removesuffix(" Answer:").rsplit(" Question: ", 1)
        question, answer = told.removeprefix("Question: ").removesuffix(".").split(" Answer: ")
        body = {"question": asked, "history": [{"question": question, "answer": answer}], "length_penalty": 1}
        more = {"num_beams": case["kwargs"].get("num_beams", 5), "max_new_tokens": 30 if "t5" in model else 29}
        bodies.append({"model": model, "image": image(case["image"]), **body, **more})
        expected.append(first(case))
    assert bodies
    answers = [answer["answers"][0] for answer in served.ask("/vqa", bodies)]
    assert [answer["answer"] for answer in answers] == expected
    assert {answer["history_used"] for answer in answers} == {1}


@pytest.mark.parametrize("model", ["opt", "opt-old"])
def test_matching(served: Asking, model: str) -> None:
    pairs = GOLDEN["itm"]["pairs"]
    bodies = [{"model": model, "image": image(pair["image"]), "text": texts_of([pair["text"]])} for pair in pairs]
    assert len(pairs) == 42
    for pair, answer in zip(pairs, served.ask("/match", bodies), strict=True):
        score = answer["scores"][0][0]
        assert score["itm_logits"] == pytest.approx(pair["itm_logits"], abs=2e-5)
        assert score["itm"] == pytest.approx(pair["itm_prob_match"], abs=5e-6)
        assert score["itc"] == pytest.approx(pair["itc_sim"], abs=5e-6)


@pytest.mark.parametrize("model", ["opt", "opt-old"])
def test_embeddings(served: Asking, model: str) -> None:
    itm = GOLDEN["itm"]
    body = {"model": model, "images": [image(name) for name in itm["images"]], "text": texts_of(list(itm["texts"]))}
    (answer,) = served.ask("/embed", [body])
    for ours, expected in zip(answer["images"], itm["images"].values(), strict=True):
        np.testing.assert_allclose(ours["embedding"], expected["image_embeds_proj"], atol=5e-6)
    for ours, expected in zip(answer["texts"], itm["texts"].values(), strict=True):
        np.testing.assert_allclose(ours["embedding"], expected["text_feat_itc"], atol=5e-6)


@pytest.mark.parametrize("model", ["opt", "opt-old"])
def test_retrieval(served: Asking, model: str) -> None:
    """`compute_sim_matrix`: match logit + cosine of the best k, in both directions. It reads 35 tokens of a text, where
    matching and the service read 32: a longer text is left out."""
    retrieval, texts = GOLDEN["itm"]["retrieval"], GOLDEN["itm"]["texts"]
    short = [texts[name]["n_tokens_untruncated"] <= 32 for name in retrieval["texts"]]
    body = {"images": [image(name) for name in retrieval["images"]], "text": texts_of(retrieval["texts"])}
    (answer,) = served.ask("/match", [{"model": model, **body}])
    scores = np.array([[pair["sum"] for pair in row] for row in answer["scores"]])
    for ours, expected in (
        (scores, np.array(retrieval["score_matrix_i2t"])),
        (scores.T, np.array(retrieval["score_matrix_t2i"])),
    ):
        kept = (expected != retrieval["not_reranked_fill"]) & (
            short if expected.shape[1] == len(short) else np.array(short)[:, None]
        )
        np.testing.assert_allclose(ours[kept], expected[kept], atol=3e-5)
        assert kept.sum() >= 12


@pytest.mark.parametrize("model", ["opt", "opt-old"])
def test_two_stage_ranking(served: Asking, model: str) -> None:
    """The same, as /rerank ranks texts for an image and images for a text: ITC chooses whom ITM scores, the others have
    -100. A longer text is left out."""
    retrieval, texts = GOLDEN["itm"]["retrieval"], GOLDEN["itm"]["texts"]
    short = np.array([texts[name]["n_tokens_untruncated"] <= 32 for name in retrieval["texts"]])
    images, asked = [image(name) for name in retrieval["images"]], texts_of(retrieval["texts"])
    how = {"model": model, "score": "sum", "prefilter": retrieval["k_test"]}

    def ranked(bodies: list[dict[str, Any]]) -> NDArray[np.float64]:
        rows = [sorted(answer["results"], key=lambda one: one["index"]) for answer in served.ask("/rerank", bodies)]
        return np.array([[one["relevance_score"] for one in row] for row in rows])

    ours = ranked([{"query": one, "documents": [{"image": each} for each in images], **how} for one in asked])
    np.testing.assert_allclose(ours[short], np.array(retrieval["score_matrix_t2i"])[short], atol=3e-5)
    ours = ranked([{"query": {"image": one}, "documents": asked, **how} for one in images])
    expected = np.array(retrieval["score_matrix_i2t"])
    fill = retrieval["not_reranked_fill"]
    same = ((ours == fill) == (expected == fill))[:, short].all(1)  # for one image the longer text takes a place
    assert same.sum() >= len(images) - 1
    np.testing.assert_allclose(ours[same][:, short], expected[same][:, short], atol=3e-5)
