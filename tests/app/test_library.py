"""The library's families over HTTP: their answers are the library's own, alone and in batches."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest

from models.families.library.texts import TextReader
from tests.app.support import encoded
from tests.library.answers import stored
from tests.library.checkpoints import CHECKPOINTS
from tests.library.lab import IMAGES, PICTURES, SIZES, Lab, blots, furthest, library_lab, padded_badly, vectors

TOLERANCE = 1e-5
WRONG = 1e-3  # what is done wrong changes answers by more


@pytest.fixture(scope="module", params=CHECKPOINTS)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with library_lab(request.param, tmp_path_factory.mktemp(request.param)) as lab:
        yield lab


def close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)


# --- the library's own answers ---


def test_embeddings_are_the_librarys(lab: Lab) -> None:
    for image, expected in zip(IMAGES, lab.expected.images, strict=True):
        close(vectors(lab.say("/embed", image=image)["images"]), [expected])
    for text, expected in zip(lab.texts, lab.expected.texts, strict=True):
        close(vectors(lab.say("/embed", text=text)["texts"]), [expected])


def test_the_library_computes_what_it_did(lab: Lab, request: pytest.FixtureRequest) -> None:
    """Where the answers of this version are stored."""
    kept = stored(version("transformers"))
    if kept is None:
        pytest.skip("no answers of this version: python -m tests.library.answers")
    name = request.node.callspec.params["lab"]
    for ours, theirs in zip((lab.expected.images, lab.expected.texts), kept[name], strict=True):
        np.testing.assert_allclose(ours[:, : len(theirs[0])], theirs, rtol=0, atol=1e-4)


def test_a_batch_is_as_each_alone(lab: Lab) -> None:
    """Texts of one token to as many as there may be, pictures of every shape; and as many of each at once."""
    answer = lab.say("/embed", images=IMAGES, text=lab.texts)
    close(vectors(answer["images"]), lab.expected.images)
    close(vectors(answer["texts"]), lab.expected.texts)
    assert answer["dimensions"] == lab.expected.texts.shape[1]


def test_a_wrong_padding_would_be_seen(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control of the test above."""

    monkeypatch.setattr(TextReader, "batch", padded_badly)
    assert furthest(vectors(lab.say("/embed", text=lab.texts)["texts"]), lab.expected.texts) > WRONG


def test_another_framing_would_be_seen(lab: Lab) -> None:
    squeezed = [encoded(blots(number, size).resize((90, 90))) for number, size in enumerate(SIZES)]
    cropped = [encoded(blots(number, size).crop((0, 0, 5, 5))) for number, size in enumerate(SIZES)]
    for others in (squeezed, cropped):
        assert furthest(lab.reference.answers(others, ["x"]).images, lab.expected.images) > WRONG


def test_cosines_of_all_pairs(lab: Lab) -> None:
    """Asked for nothing else: the only head that it has."""
    expected = lab.expected.images @ lab.expected.texts.T
    for asked in ({}, {"head": "itc"}):
        scores = lab.say("/match", images=IMAGES, text=lab.texts, **asked)["scores"]
        assert {key for row in scores for pair in row for key in pair} == {"itc"}
        close([[pair["itc"] for pair in row] for row in scores], expected)


def test_classes_are_the_librarys(lab: Lab) -> None:
    """By the softmax of its logits, or the sigmoid of each where it was trained so."""
    logits = lab.expected.logits
    if lab.tiny.sigmoid:
        expected = 1 / (1 + np.exp(-logits))
    else:
        weights = np.exp(logits - logits.max(1, keepdims=True))
        expected = weights / weights.sum(1, keepdims=True)
    answer = lab.say("/classify", images=IMAGES, label=lab.texts, template="{}")
    for row, own in zip(answer["classes"], expected, strict=True):
        scores = {one["label"]: one["score"] for one in row}
        close([scores[text] for text in lab.texts], own)
    [plain] = lab.service.ask(
        "/classify", [{"inputs": IMAGES[0], "parameters": {"candidate_labels": lab.texts, "hypothesis_template": "{}"}}]
    )
    assert plain == [{"label": one["label"], "score": one["score"]} for one in answer["classes"][0]]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_documents_are_ranked_by_cosine(lab: Lab, path: str) -> None:
    cosines = lab.expected.images @ lab.expected.texts.T
    by_text = lab.say(path, query=lab.texts[1], documents=[{"image": image} for image in IMAGES])["results"]
    by_image = lab.say(path, query={"image": IMAGES[1]}, documents=lab.texts, score="itc")["results"]
    for results, expected in ((by_text, cosines[:, 1]), (by_image, cosines[1])):
        assert [one["index"] for one in results] == np.argsort(-expected).tolist()
        close([one["relevance_score"] for one in results], np.sort(expected)[::-1])


def test_embeddings_for_openais_clients(lab: Lab) -> None:
    texts = lab.say("/v1/embeddings", input=lab.texts, model="tiny")
    images = lab.say("/v1/embeddings", input=IMAGES, modality="image", model="tiny")
    close(vectors(texts["data"]), lab.expected.texts)
    close(vectors(images["data"]), lab.expected.images)


# --- what it cannot, and what it does not read ---

CANNOT = [
    ("/caption", {}, "does not have the task caption"),
    ("/vqa", {"question": "what is it?"}, "does not have the task vqa"),
    ("/localize", {"text": "x"}, "its two encoders do not look at each other"),
    ("/capfilt", {"text": "x"}, "does not have the task capfilt"),
    ("/match", {"text": "x", "head": "itm"}, "head: the model tiny has itc, not itm"),
    ("/match", {"text": "x", "head": "both"}, "head: the model tiny has itc, not itm"),
    ("/match", {"text": "x", "head": "lm"}, "does not have the task caption"),
    ("/match", {"text": "x", "video": True}, "video: the model tiny does not take it"),
    ("/embed", {"video": True}, "video: the model tiny does not take it"),
    ("/embed", {"space": "image"}, "space: the model tiny has itc"),
    ("/embed", {"pooling": "mean"}, "pooling: the model tiny has one vector"),
    ("/classify", {"label": ["x", "y"], "head": "itm"}, "head: the model tiny has itc, not itm"),
    ("/rerank", {"documents": ["x"], "score": "itm"}, "score: the model tiny has itc, not itm"),
    ("/rerank", {"documents": ["x"], "score": "sum"}, "score: the model tiny has itc, not itm"),
    ("/rerank", {"documents": ["x"], "video": True}, "video: the model tiny does not take it"),
    ("/embed", {"text": "\t "}, "text"),
]


@pytest.mark.parametrize(("path", "fields", "reason"), CANNOT)
def test_what_it_cannot_is_told(lab: Lab, path: str, fields: dict[str, Any], reason: str) -> None:
    image = {"query": {"image": IMAGES[0]}} if path == "/rerank" else {"image": IMAGES[0]}
    status, problem = lab.service.refused(path, image | fields)
    assert status == 422
    assert reason in problem["detail"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_it_does_not_talk(lab: Lab, path: str) -> None:
    message = {"role": "user", "content": "what is it?"}
    status, problem = lab.service.refused(path, {"model": "tiny", "messages": [message], "input": [message]})
    assert 400 <= status < 500
    assert problem["error"]["message"]


def test_a_text_that_is_too_long(lab: Lab) -> None:
    """Refused with its number of tokens, or cut, each as the authors do; and of several the one that it is."""
    for fields in ({"text": lab.too_long}, {"text": [lab.texts[0], lab.too_long]}):
        if lab.tiny.cut:
            expected = lab.reference.answers(
                PICTURES[:1], fields["text"] if len(fields["text"]) == 2 else [lab.too_long]
            )
            close(vectors(lab.say("/embed", **fields)["texts"]), expected.texts)
        else:
            status, problem = lab.service.refused("/embed", fields)
            assert status == 422
            assert f"at most {lab.tiny.limit} are allowed" in problem["detail"]


def test_models_tells_what_it_has(lab: Lab) -> None:
    [model] = lab.service.get("/models")["models"]
    assert set(model["tasks"]) == {"match", "embed"}
    match = model["tasks"]["match"]
    assert (match["heads"], match["video"]) == (["itc"], False)
    cosines = lab.expected.images @ lab.expected.texts.T
    bias = match["logit_bias"] if lab.tiny.sigmoid else 0.0
    np.testing.assert_allclose(match["temperature"] * cosines + bias, lab.expected.logits, rtol=0, atol=1e-3)
    assert (match["logit_bias"] is not None) == lab.tiny.sigmoid
