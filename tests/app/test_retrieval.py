"""Classifying and re-ranking: nothing but arithmetic on what /match and /embed give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.engine.texts import ENTRY_BYTES, TextCache, TextKey
from app.wire.retrieval import ClassifyAnswer, RerankAnswer
from models.base import Capabilities
from models.fake.runner import TEMPERATURE
from models.inputs import PairInput, TextInput
from tests.app.conftest import Shared
from tests.app.support import BLUE, GREEN, RED, animated, b64, kind, lab, run
from tests.app.test_chat import refused, uri
from tests.app.test_tasks import checked

LABELS = ["red", "blue", "green", "a blue one"]
IMAGES = [RED, BLUE, GREEN]


def softmax(values: Any) -> NDArray[np.float64]:
    weights = np.exp(np.array(values) - np.max(values))
    return np.asarray(weights / weights.sum())


def scores(row: list[Any]) -> dict[str, float]:
    return {one["label"]: one["score"] for one in row}


# --- /classify ---


def test_classes_are_the_softmax_of_scaled_cosines(shared: Shared) -> None:
    """By arithmetic on /embed, with the temperature that /models tells."""
    images = [b64(image) for image in IMAGES]
    texts = [f"a photo of {label}." for label in LABELS]
    embedded = shared.post("/embed", json={"images": images, "text": texts}).json()
    vectors, of_text = (
        np.array([one["embedding"] for one in embedded[kind]], np.float64) for kind in ("images", "texts")
    )
    temperature = shared.get("/models").json()["models"][0]["tasks"]["match"]["temperature"]
    answer = checked(shared.post("/classify", json={"images": images, "label": LABELS}), ClassifyAnswer)
    assert temperature == TEMPERATURE
    for row, cosines in zip(answer["classes"], vectors @ of_text.T, strict=True):
        assert [one["score"] for one in row] == sorted((one["score"] for one in row), reverse=True)
        assert scores(row) == pytest.approx(dict(zip(LABELS, softmax(temperature * cosines), strict=True)), abs=1e-6)
        assert {one["label"]: one["itc"] for one in row} == pytest.approx(
            dict(zip(LABELS, cosines, strict=True)), abs=1e-6
        )


def test_several_templates_are_one_averaged_embedding(shared: Shared) -> None:
    templates = ["a {} thing", "the {}", "{} it is"]
    texts = [template.replace("{}", label) for label in LABELS for template in templates]
    embedded = shared.ask("/embed", text=texts).json()
    of_text = np.array([one["embedding"] for one in embedded["texts"]]).reshape(len(LABELS), 3, -1).mean(1)
    of_text /= np.linalg.norm(of_text, axis=1, keepdims=True)
    cosines = of_text @ np.array(embedded["images"][0]["embedding"])
    [row] = checked(shared.ask("/classify", label=LABELS, template=templates), ClassifyAnswer)["classes"]
    assert scores(row) == pytest.approx(dict(zip(LABELS, softmax(TEMPERATURE * cosines), strict=True)), abs=1e-6)


def test_classes_by_the_matching_head(shared: Shared) -> None:
    texts = [f"a photo of {label}." for label in LABELS]
    [pairs] = shared.ask("/match", text=texts, head="itm").json()["scores"]
    [row] = checked(shared.ask("/classify", label=LABELS, head="itm"), ClassifyAnswer)["classes"]
    logits = [pair["itm_logits"][1] for pair in pairs]
    assert scores(row) == pytest.approx(dict(zip(LABELS, softmax(logits), strict=True)))
    [alone] = checked(shared.ask("/classify", label=LABELS, head="itm", multi_label=True), ClassifyAnswer)["classes"]
    assert scores(alone) == pytest.approx({label: pair["itm"] for label, pair in zip(LABELS, pairs, strict=True)})


def test_the_best_of_each_image_in_every_form(shared: Shared) -> None:
    fields = {"label": ["red", "blue", "nothing"], "template": "a {} thing", "top_k": 1}
    images = [b64(image) for image in (BLUE, RED, BLUE)]
    answer = checked(shared.post("/classify", json={"images": images, **fields}), ClassifyAnswer)
    assert [[one["label"] for one in row] for row in answer["classes"]] == [["blue"], ["red"], ["blue"]]
    form = shared.post("/classify", files={"image": ("a.png", BLUE)}, data=fields)
    raw = shared.post("/classify", content=BLUE, headers={"content-type": "image/png"}, params=fields)
    assert form.json()["classes"] == raw.json()["classes"] == answer["classes"][:1]


def test_hugging_faces_shape_on_the_same_route(shared: Shared) -> None:
    [native] = shared.ask("/classify", BLUE, label=LABELS, template="so {}").json()["classes"]
    parameters = {"candidate_labels": LABELS, "hypothesis_template": "so {}"}
    answer = shared.post("/classify", json={"inputs": b64(BLUE), "parameters": parameters})
    assert answer.json() == [{"label": one["label"], "score": one["score"]} for one in native]


def test_labels_that_come_again_are_not_embedded_again() -> None:
    async def test() -> None:
        async with lab() as there:

            def embedded() -> int:
                payloads = [payload for call in there.heads.calls for payload in call.payloads]
                return sum(isinstance(payload, TextInput) for payload in payloads)

            first = (await there.ask("/classify", RED, label=LABELS)).json()
            assert embedded() == len(LABELS)
            assert (await there.ask("/classify", RED, label=LABELS)).json() == first
            assert embedded() == len(LABELS)
            await there.ask("/classify", BLUE, label=[*LABELS, "gray"])
            assert embedded() == len(LABELS) + 1
            await there.say("/rerank", {"query": uri(), "documents": ["a photo of gray."], "score": "itc"})
            assert embedded() == len(LABELS) + 1

    run(test)


def test_the_cache_of_texts_is_bounded() -> None:
    cache, vector = TextCache(3 * (ENTRY_BYTES + 64)), np.zeros((1, 16), np.float32)
    keys = [TextKey.of("heads", str(number)) for number in range(4)]
    for key in keys[:3]:
        cache.keep(key, vector)
    assert cache.get(keys[0]) is not None
    cache.keep(keys[3], vector)
    assert [cache.get(key) is not None for key in keys] == [True, False, True, True]
    assert cache.bytes == 3 * (ENTRY_BYTES + 64)
    assert TextKey.of("other", "0") != keys[0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"label": ["red"]}, "label"),
        ({"label": []}, "label"),
        ({"label": ["red", " "]}, "empty"),
        ({"label": ["a"] * 1025}, "at most 1024"),
        ({"template": "a photo"}, "once"),
        ({"template": ["{}"] * 129}, "at most 128"),
        ({"label": ["a"] * 1000, "template": ["{}"] * 9}, "8192"),
        ({"label": ["a", "b", "c", "d"], "template": ["{} " + "x" * 9000] * 128}, "characters"),
        ({"label": ["a" * 9000] * 1000}, "characters"),
        ({"multi_label": True}, "itm"),
        ({"head": "itm", "template": ["a {}", "the {}"]}, "itc"),
        ({"head": "lm"}, "head"),
        ({"top_k": 0}, "top_k"),
        ({"labels": ["a", "b"]}, "unknown field"),
        ({"inputs": b64(RED)}, "parameters"),
    ],
)
def test_what_cannot_be_classified(shared: Shared, fields: dict[str, Any], words: str) -> None:
    calls = len(shared.lab.heads.calls)
    response = shared.ask("/classify", **fields)
    assert kind(response) == (422, "invalid-input")
    assert words in response.json()["detail"]
    assert len(shared.lab.heads.calls) == calls


def test_hugging_faces_shape_is_checked_too(shared: Shared) -> None:
    for parameters in ({}, {"candidate_labels": "red"}, {"candidate_labels": ["a", "b"], "function": "x"}, ["a"]):
        assert shared.post("/classify", json={"inputs": b64(RED), "parameters": parameters}).status_code == 422


# --- /rerank ---


def pair_scores(shared: Shared, images: list[bytes], texts: list[str]) -> list[list[dict[str, float]]]:
    found: list[list[dict[str, float]]] = shared.post(
        "/match", json={"images": [b64(image) for image in images], "text": texts}
    ).json()["scores"]
    return found


@pytest.mark.parametrize("score", ["itm", "sum", "itc"])
def test_reranked_images_have_the_scores_of_match(shared: Shared, score: str) -> None:
    expected = [row[0] for row in pair_scores(shared, IMAGES, ["a blue thing"])]
    body = {"query": "a blue thing", "documents": [{"image": uri(image)} for image in IMAGES], "score": score}
    answer = checked_rerank(shared, body)
    assert {one["index"]: one["relevance_score"] for one in answer["results"]} == pytest.approx(
        {index: pair[score] for index, pair in enumerate(expected)}
    )
    assert answer["results"][0]["index"] == 1
    for one in answer["results"]:
        told = {"itc": expected[one["index"]]["itc"]} | (
            {} if score == "itc" else {"itm": expected[one["index"]]["itm"]}
        )
        assert one["blip"] == pytest.approx(told)


def checked_rerank(shared: Shared, body: dict[str, Any], path: str = "/v1/rerank") -> Any:
    answer = checked(shared.post(path, json=body), RerankAnswer)
    ranked = [one["relevance_score"] for one in answer["results"]]
    assert ranked == sorted(ranked, reverse=True)
    return answer


@pytest.mark.parametrize("query", [{"image": uri(BLUE)}, uri(BLUE), {"image": b64(BLUE)}])
def test_reranked_texts(shared: Shared, query: Any) -> None:
    texts = ["a red thing", "a blue thing", "a green thing", "a blue thing"]
    [expected] = pair_scores(shared, [BLUE], texts)
    documents = [texts[0], {"text": texts[1]}, texts[2], texts[3]]
    answer = checked_rerank(shared, {"query": query, "documents": documents, "top_n": 3}, "/rerank")
    assert [one["index"] for one in answer["results"][:2]] == [1, 3]
    assert len(answer["results"]) == 3
    for one in answer["results"]:
        assert one["relevance_score"] == pytest.approx(expected[one["index"]]["itm"])
        assert "document" not in one


def test_documents_come_back_where_they_are_wanted(shared: Shared) -> None:
    documents = ["red", {"text": "blue"}]
    answer = checked_rerank(shared, {"query": uri(BLUE), "documents": documents, "return_documents": True})
    assert [one["document"] for one in answer["results"]] == [{"text": "blue"}, {"text": "red"}]
    [one] = checked_rerank(shared, {"query": "red", "documents": [{"image": uri()}], "return_documents": True})[
        "results"
    ]
    assert one["document"] == {"image": uri()}


@pytest.mark.parametrize(("score", "held_back"), [("itm", 0.0), ("sum", -100.0)])
def test_itc_chooses_whom_itm_scores(score: str, held_back: float) -> None:
    """The two stages of the papers: beyond the prefilter ITM is not run at all."""

    async def test() -> None:
        async with lab() as there:
            texts = [f"thing {number}" for number in range(6)] + ["blue", "a blue thing"]
            body = {"query": uri(BLUE), "documents": texts, "score": score, "prefilter": 3}
            everything = (await there.say("/match", {"image": b64(BLUE), "text": texts}))["scores"][0]
            by_itc = sorted(range(8), key=lambda index: -everything[index]["itc"])
            there.heads.calls.clear()
            results = (await there.say("/rerank", body))["results"]
            pairs = [
                payload for call in there.heads.calls for payload in call.payloads if isinstance(payload, PairInput)
            ]
            assert sorted(pair.text for pair in pairs) == sorted(texts[index] for index in by_itc[:3])
            assert {one["index"] for one in results[:3]} == set(by_itc[:3])
            for one in results[:3]:
                assert one["relevance_score"] == pytest.approx(everything[one["index"]][score])
            assert [one["index"] for one in results[3:]] == by_itc[3:]
            assert all(one["relevance_score"] == held_back and "itm" not in one["blip"] for one in results[3:])

    run(test)


def test_the_prefilter_has_the_authors_default() -> None:
    async def test() -> None:
        async with lab() as there:
            await there.say("/rerank", {"query": uri(), "documents": [f"text {number}" for number in range(200)]})
            kinds = [type(payload) for call in there.heads.calls for payload in call.payloads]
            assert (kinds.count(PairInput), kinds.count(TextInput)) == (128, 200)

    run(test)


def test_text_embeddings_inferences_shape(shared: Shared) -> None:
    texts = ["red", "blue", "green"]
    native = checked_rerank(shared, {"query": uri(BLUE), "documents": texts}, "/rerank")["results"]
    plain = [{"index": one["index"], "score": one["relevance_score"]} for one in native]
    asked = {"query": uri(BLUE), "texts": texts, "truncate": True, "raw_scores": False}
    assert shared.post("/rerank", json=asked).json() == plain
    told = shared.post("/rerank", json=asked | {"return_text": True}).json()
    assert told == [{**one, "text": texts[one["index"]]} for one in plain]


def test_several_vectors_for_an_image() -> None:
    """The nearest counts, as in /match."""

    async def test() -> None:
        async with lab(Capabilities(pooling=("none", "mean"))) as there:
            [[pair]] = (await there.ask("/match", text="a photo of red.")).json()["scores"]
            answer = await there.say("/rerank", {"query": "a photo of red.", "documents": [{"image": uri()}]})
            assert answer["results"][0]["blip"]["itc"] == pytest.approx(pair["itc"])
            row = (await there.ask("/classify", label=["red", "blue"])).json()["classes"][0]
            assert row[0]["itc"] == pytest.approx(pair["itc"])

    run(test)


def test_animations_are_reranked_as_videos(shared: Shared) -> None:
    """Each of its own, by the scores of /match."""
    videos = [
        animated([(level, 0, 255 - level) for level in levels], "GIF") for levels in ((0, 40, 80), (250, 200, 150))
    ]
    matched = [shared.ask("/match", data, text="red", video=True).json()["scores"][0][0] for data in videos]
    documents = [{"image": b64(data)} for data in videos]
    for query, given in (("red", documents), ({"image": b64(videos[1])}, ["red", "blue"])):
        body = {"query": query, "documents": given, "score": "sum", "video": True}
        results = checked(shared.post("/rerank", json=body), RerankAnswer)["results"]
        scores = {one["index"]: one["relevance_score"] for one in results}
        if query == "red":
            assert scores == pytest.approx({index: pair["sum"] for index, pair in enumerate(matched)}, abs=1e-5)
            assert results[0]["index"] == 1
        else:
            assert scores[0] == pytest.approx(matched[1]["sum"], abs=1e-5)
    many = {"query": "red", "documents": documents * 4, "video": True}  # as many frames as /match takes images
    assert len(checked(shared.post("/rerank", json=many), RerankAnswer)["results"]) == 8
    still = shared.post("/rerank", json={"query": "red", "documents": documents, "score": "sum"}).json()["results"]
    assert still[0]["relevance_score"] != pytest.approx(matched[1]["sum"], abs=1e-3)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"query": "a", "documents": ["b"]}, "texts for an image"),
        ({"query": uri(), "documents": [uri()]}, "texts for an image"),
        ({"query": "a", "documents": ["b", {"image": uri()}]}, "texts for an image"),
        ({"query": "a", "documents": []}, "documents"),
        ({"query": "a"}, "one of the two"),
        ({"query": "a", "documents": ["b"], "texts": ["b"]}, "one of the two"),
        ({"documents": ["b"]}, "query"),
        ({"query": " ", "documents": [uri()]}, "empty"),
        ({"query": uri(), "documents": ["a", " "]}, "documents: 1: is empty"),
        ({"query": uri(), "documents": ["a" * 10_001]}, "characters"),
        ({"query": {"text": "a", "image": uri()}, "documents": ["b"]}, "a text or an image"),
        ({"query": uri(), "documents": ["a"] * 1025}, "at most 1024"),
        ({"query": "a", "documents": [{"image": uri()}] * 65}, "at most 64"),
        ({"query": "a", "documents": [{"image": uri()}] * 9, "video": True}, "9 videos of 8 frames, at most 64 frames"),
        ({"query": uri(), "texts": ["a"], "raw_scores": True}, "raw_scores"),
        ({"query": uri(), "documents": ["a"], "top_n": 0}, "top_n"),
        ({"query": uri(), "documents": ["a"], "score": "lm"}, "score"),
    ],
)
def test_what_cannot_be_reranked(shared: Shared, body: dict[str, Any], words: str) -> None:
    """Told in the shape of the path."""
    calls = len(shared.lab.heads.calls)
    plain = shared.post("/rerank", json=body)
    assert kind(plain) == (422, "invalid-input")
    assert words in plain.json()["detail"]
    refused(shared.post("/v1/rerank", json=body), 400, "invalid_request_error", words)
    assert len(shared.lab.heads.calls) == calls


def test_both_have_labels_of_their_own_in_the_metrics() -> None:
    async def test() -> None:
        async with lab() as there:
            await there.ask("/classify")
            for path in ("/rerank", "/v1/rerank"):
                await there.say(path, {"query": "a", "documents": [{"image": uri()}]})
            assert there.count("requests_total", task="classify", model="fake", code="200") == 1
            assert there.count("requests_total", task="rerank", model="fake", code="200") == 2
            assert not there.admission.ledger.unfinished

    run(test)
