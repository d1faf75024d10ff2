"""CLIPSeg, OWL-ViT, OWLv2 and ViLT over HTTP: their answers are the library's own, alone and in batches, in the
picture's own pixels."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    CLIPSegForImageSegmentation,
    Owlv2ForObjectDetection,
    OwlViTForObjectDetection,
    ViltForImageAndTextRetrieval,
    ViltForImagesAndTextClassification,
    ViltForQuestionAnswering,
)

from models.base import Item, Op
from models.catalog import WITHOUT_EMBEDDINGS
from models.families.library.texts import TextReader
from models.loader import load
from tests.app.support import Asking, InlineDecoder, asking, b64, encoded
from tests.library.regions import ANSWERS, Regions, write_clipseg, write_owlv2, write_owlvit, write_vilt

TOLERANCE = 1e-5
WRONG = 1e-3  # what is done wrong changes answers by more
SIZES = ((32, 32), (32, 11), (11, 32), (90, 30), (30, 90), (200, 150))
TEXTS = ["x", "a red dog", "q b", "red dog x a q red b z a"]
LONG = "red dog x a q b z x a q b z"  # 14 tokens of 16
CATALOG = """[profiles]
tiny = ["tiny"]
[models.tiny]
family = "{family}"
{task} = {{ checkpoint = "{task}" }}
"""
KINDS: dict[str, tuple[str, Callable[[Path], None], Any]] = {
    "clipseg": ("segment", write_clipseg, CLIPSegForImageSegmentation),
    "owlvit": ("detect", write_owlvit, OwlViTForObjectDetection),
    "owlv2": ("detect", write_owlv2, Owlv2ForObjectDetection),
    "vilt": ("vqa", write_vilt, ViltForQuestionAnswering),
    "vilt match": ("match", lambda folder: write_vilt(folder, "match"), ViltForImageAndTextRetrieval),
    "vilt-nlvr2": ("vqa", lambda folder: write_vilt(folder, "nlvr2"), ViltForImagesAndTextClassification),
}
DTYPES = ("fp32", "bf16", "fp16")


def blots(number: int, size: tuple[int, int]) -> bytes:
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    return encoded(small.resize(size, Image.Resampling.BICUBIC))


PICTURES = [blots(number, size) for number, size in enumerate(SIZES)]


def catalog_of(kind: str, folder: Path) -> Path:
    task, write, _ = KINDS[kind]
    write(folder / task)
    (folder / "catalog.toml").write_text(CATALOG.format(family=kind.split()[0], task=task))
    return folder / "catalog.toml"


class Lab:
    def __init__(self, kind: str, folder: Path, service: Asking) -> None:
        task, _, model = KINDS[kind]
        self.path, self.service, self.library = f"/{task}", service, Regions(folder / task, model)

    def say(self, picture: bytes, **fields: Any) -> Any:
        return self.all([{"image": b64(picture)} | fields])[0]

    def all(self, bodies: list[dict[str, Any]]) -> list[Any]:
        return self.service.ask(self.path, bodies)


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Lab]]:
    """One of each kind, made when it is first asked for."""
    made: dict[str, Lab] = {}
    with ExitStack() as stack:

        def lab(kind: str) -> Lab:
            if kind not in made:
                folder = tmp_path_factory.mktemp("tiny")
                service = asking("tiny", catalog_of(kind, folder), make_decoder=lambda *_: InlineDecoder())
                made[kind] = Lab(kind, folder, stack.enter_context(service))
            return made[kind]

        yield lab


def fixture_of(*kinds: str) -> Any:
    @pytest.fixture(params=kinds)
    def lab(request: pytest.FixtureRequest, labs: Callable[[str], Lab]) -> Lab:
        return labs(request.param)

    return lab


segmenting, detecting = fixture_of("clipseg"), fixture_of("owlvit", "owlv2")
answering, matching, judging = fixture_of("vilt"), fixture_of("vilt match"), fixture_of("vilt-nlvr2")


def close(ours: Any, theirs: Any, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def furthest(ours: Any, theirs: Any) -> float:
    return float(np.abs(np.asarray(ours) - theirs).max())


def left_padded(_: TextReader, rows: list[list[int]], device: torch.device) -> dict[str, Any]:
    """The padding that is wrong for every one of these families."""
    longest = max(map(len, rows))
    ids = [[0] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


# --- CLIPSeg ---


def mask_of(segment: dict[str, Any]) -> NDArray[np.float64]:
    image = Image.open(io.BytesIO(base64.b64decode(segment["mask"])))
    return np.asarray(image, np.float64) / 255


def test_scores_and_masks_are_the_librarys(segmenting: Lab) -> None:
    for picture, size in zip(PICTURES, SIZES, strict=True):
        for text in TEXTS:
            [segment] = segmenting.say(picture, text=text)["segments"]
            expected = segmenting.library.mask(picture, text)
            close(segment["score"], expected.max())
            levels = Image.fromarray(np.rint(255 * expected).astype(np.uint8))
            close(mask_of(segment), np.asarray(levels.resize(size, Image.Resampling.BILINEAR)) / 255, 1.01 / 255)


def test_segments_in_a_batch_are_as_each_alone(segmenting: Lab) -> None:
    answers = segmenting.all([{"image": b64(picture), "text": TEXTS} for picture in PICTURES])
    for picture, answer in zip(PICTURES, answers, strict=True):
        expected = [segmenting.library.mask(picture, text).max() for text in TEXTS]
        close([one["score"] for one in answer["segments"]], expected)


def test_a_wrong_padding_of_what_is_segmented_would_be_seen(segmenting: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextReader, "batch", left_padded)
    scores = [one["score"] for one in segmenting.say(PICTURES[0], text=TEXTS)["segments"]]
    assert furthest(scores, [segmenting.library.mask(PICTURES[0], text).max() for text in TEXTS]) > WRONG


def test_features_are_as_narrow_as_the_decoder_reads(tmp_path: Path) -> None:
    """Three layers of 17 tokens, 16 wide: not 32."""
    [model] = load("tiny", catalog=catalog_of("clipseg", tmp_path), device="cpu", dtype="fp32", threads=1)
    checkpoint = model.checkpoints[next(iter(model.checkpoints))]
    pixels = torch.zeros(3, 32, 32)
    [features] = checkpoint.tower.encode([Item(Op.ENCODE, None, pixels)])
    assert features.nbytes == 4 * 3 * 17 * 16


# --- OWL ---


def sorted_boxes(scores: Any, boxes: Any) -> NDArray[np.float64]:
    """`(boxes, 5)`, best first."""
    rows = np.column_stack([scores, boxes])
    return np.asarray(rows[np.argsort(-rows[:, 0], kind="stable")])


def ours(answer: dict[str, Any]) -> NDArray[np.float64]:
    found = answer["detections"]
    return np.array([[one["score"], *one["box"]] for one in found]).reshape(-1, 5)


def test_boxes_are_the_librarys(detecting: Lab) -> None:
    """In the picture's own pixels, for each of its shapes; each place has the text that fits it best."""
    for picture, size in zip(PICTURES, SIZES, strict=True):
        for texts in (["x"], TEXTS):
            answer = detecting.say(picture, text=texts, threshold=0.3)
            expected = detecting.library.boxes(picture, texts, 0.3, size)
            assert len(answer["detections"]) == len(expected["scores"]) > 0
            theirs = sorted_boxes(expected["scores"], expected["boxes"])
            close(ours(answer)[:, 0], theirs[:, 0])
            close(ours(answer)[:, 1:] / max(size), theirs[:, 1:] / max(size))
            order = np.argsort(-expected["scores"], kind="stable")
            assert [one["text"] for one in answer["detections"]] == [texts[int(expected["labels"][at])] for at in order]


def test_boxes_in_a_batch_are_as_each_alone(detecting: Lab) -> None:
    texts = [*TEXTS, LONG]
    alone = [[detecting.say(picture, text=text, threshold=0) for text in texts] for picture in PICTURES]
    bodies = [{"image": b64(picture), "text": text, "threshold": 0} for picture in PICTURES for text in texts]
    together = iter(detecting.all(bodies))
    for row in alone:
        for answer in row:
            one, other = ours(answer), ours(next(together))
            close(other[:, 0], one[:, 0])
            close(other[:, 1:] / 200, one[:, 1:] / 200)


def test_a_wrong_padding_of_what_is_detected_would_be_seen(detecting: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = PICTURES[0]
    expected = detecting.library.boxes(picture, TEXTS, 0.0, SIZES[0])
    monkeypatch.setattr(TextReader, "batch", left_padded)
    found = ours(detecting.say(picture, text=TEXTS, threshold=0))
    assert furthest(found[:, 0], np.sort(expected["scores"])[::-1]) > WRONG


def test_what_looks_like_an_example_is_the_librarys(detecting: Lab) -> None:
    """The library's scores are shares of the best one, and those below a tenth of it are left out."""
    pairs = list(zip(PICTURES, SIZES, strict=True))
    for (picture, size), (example, _) in zip(pairs, [*pairs[1:], pairs[0]], strict=True):
        expected = detecting.library.guided(picture, example, size)
        answer = ours(detecting.say(picture, example=b64(example), threshold=0, top_k=1000))
        most = expected["best"] + 1e-6
        shares = ((answer[:, 0] - 0.1 * most) / (0.9 * most)).clip(0, 1)
        theirs = sorted_boxes(expected["scores"], expected["boxes"])
        close(shares[: len(theirs)], theirs[:, 0])
        close(answer[: len(theirs), 1:] / max(size), theirs[:, 1:] / max(size))


# --- ViLT ---


def test_answers_are_the_librarys(answering: Lab) -> None:
    """Ranked, each with its own probability; of any shape of picture."""
    for picture in PICTURES:
        answers = answering.say(picture, question=TEXTS)["answers"]
        for text, answer in zip(TEXTS, answers, strict=True):
            expected = 1 / (1 + np.exp(-answering.library.logits([picture], text)))
            order = np.argsort(-expected, kind="stable")
            assert [one["answer"] for one in answer["candidates"]] == [ANSWERS[at] for at in order]
            close([one["probability"] for one in answer["candidates"]], expected[order])
            assert (answer["answer"], answer["confidence"]) == tuple(answer["candidates"][0].values())


def test_answers_in_a_batch_are_as_each_alone(answering: Lab) -> None:
    """Pictures of several shapes in one sequence with texts of several lengths."""
    bodies = [{"image": b64(picture), "question": text} for picture in PICTURES for text in [*TEXTS, LONG]]
    alone = [answering.all([body])[0]["answers"][0]["candidates"] for body in bodies]
    for one, other in zip(alone, answering.all(bodies), strict=True):
        together = {each["answer"]: each["probability"] for each in other["answers"][0]["candidates"]}
        close([together[each["answer"]] for each in one], [each["probability"] for each in one])


@pytest.mark.parametrize("stream", [False, True])
def test_what_chat_clients_say_of_writing_does_nothing(answering: Lab, stream: bool) -> None:
    """As with `candidates`: they send a temperature and a number of tokens whatever they ask."""
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64(PICTURES[1])}"}}
    said = {"messages": [{"role": "user", "content": [{"type": "text", "text": "is it x?"}, image]}], "stream": stream}
    sent = {"max_tokens": 4096, "temperature": 0.7, "top_p": 0.9, "seed": 1, "num_beams": 2}
    [expected] = answering.say(PICTURES[1], question="is it x?")["answers"]
    text = answering.service.posted("/v1/chat/completions", said | sent)
    assert f'"content":"{expected["answer"]}"' in text
    assert f'"confidence":{expected["confidence"]}' in text
    status, problem = answering.service.refused("/v1/chat/completions", said | {"n": 2})
    assert (status, problem["error"]["message"]) == (400, "n: the model writes no answer, it chooses one")


def test_candidates_among_those_that_it_knows(answering: Lab) -> None:
    every = {
        one["answer"]: one["probability"]
        for one in answering.say(PICTURES[1], question="x")["answers"][0]["candidates"]
    }
    [answer] = answering.say(PICTURES[1], question="x", candidates=["no", "2"])["answers"]
    assert {one["answer"]: one["probability"] for one in answer["candidates"]} == {
        name: every[name] for name in ("no", "2")
    }
    [answer] = answering.say(PICTURES[1], question="x", top_candidates=2)["answers"]
    assert len(answer["candidates"]) == 2


def test_matches_are_the_librarys(matching: Lab) -> None:
    images = [b64(picture) for picture in PICTURES]
    [answer] = matching.all([{"images": images, "text": TEXTS}])
    for picture, row in zip(PICTURES, answer["scores"], strict=True):
        for text, pair in zip(TEXTS, row, strict=True):
            [logit] = matching.library.logits([picture], text)
            close(pair["itm_logits"], [0, logit])
            close(pair["itm"], 1 / (1 + np.exp(-logit)))
            assert set(pair) == {"itm", "itm_logits"}


def test_the_listing_knows_who_embeds(matching: Lab) -> None:
    [model] = matching.service.get("/models")["models"]
    assert ("embed" in model["tasks"]) == (model["family"] not in WITHOUT_EMBEDDINGS)
    assert set(model["tasks"]) == {"match"}
    assert model["tasks"]["match"]["temperature"] is None  # there are no cosines


def test_a_wrong_mask_of_patches_would_be_seen(matching: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: what a picture does not have is read, where another in the batch has it."""
    pad = torch.nn.utils.rnn.pad_sequence

    def unmasked(rows: list[torch.Tensor], **how: Any) -> torch.Tensor:
        padded = pad(rows, **how)
        return padded if padded.dim() > 2 else padded * 0 + 1

    monkeypatch.setattr(torch.nn.utils.rnn, "pad_sequence", unmasked)
    [answer] = matching.all([{"images": [b64(picture) for picture in PICTURES], "text": "x"}])
    expected = [matching.library.logits([picture], "x")[0] for picture in PICTURES]
    assert furthest([row[0]["itm_logits"][1] for row in answer["scores"]], expected) > WRONG


def test_models_tell_what_a_question_is_about(answering: Lab, judging: Lab) -> None:
    for there, expected in ((answering, (1, len(ANSWERS))), (judging, (2, 2))):
        [model] = there.service.get("/models")["models"]
        assert (model["tasks"]["vqa"]["images"], model["tasks"]["vqa"]["answers"]) == expected


def test_a_sentence_about_two_pictures(judging: Lab) -> None:
    """In their order, and of different shapes."""
    for pair in ((0, 1), (1, 0), (3, 4), (5, 5)):
        pictures = [PICTURES[at] for at in pair]
        [body] = [{"images": [b64(picture) for picture in pictures], "question": TEXTS}]
        for text, answer in zip(TEXTS, judging.all([body])[0]["answers"], strict=True):
            logits = judging.library.logits(pictures, text)
            expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            found = {one["answer"]: one["probability"] for one in answer["candidates"]}
            close([found["False"], found["True"]], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_computes_what_it_did(kind: str, labs: Callable[[str], Lab]) -> None:
    """Where the answers of this version are stored."""
    from tests.library.region_answers import expected, stored  # which imports this

    kept = stored(version("transformers"))
    if kept is None:
        pytest.skip("no answers of this version: python -m tests.library.region_answers")
    np.testing.assert_allclose(expected(kind, labs(kind).library)[: len(kept[kind])], kept[kind], rtol=0, atol=1e-4)


# --- what they cannot, and what they do not read ---

CANNOT: dict[str, list[tuple[str, dict[str, Any], str]]] = {
    "clipseg": [
        ("/segment", {"text": "x " * 90}, "at most 77 are allowed"),
        ("/segment", {"text": ["x", "x " * 90]}, "text: 1: has 92 tokens"),
        ("/detect", {"text": "x"}, "does not have the task detect"),
        ("/match", {"text": "x"}, "does not have the task match"),
        ("/embed", {}, "does not have the task embed"),
    ],
    "owlvit": [
        ("/detect", {"text": "x " * 15}, "has 17 tokens, at most 16"),
        ("/segment", {"text": "x"}, "does not have the task segment"),
    ],
    "vilt": [
        ("/vqa", {"question": "x " * 39}, "question: has 41 tokens, at most 40"),
        ("/vqa", {"question": "x", "candidates": ["yes", "maybe"]}, "'maybe' is none of the 5 answers"),
        ("/vqa", {"question": "x", "num_beams": 2}, "num_beams: the model writes no answer"),
        ("/vqa", {"question": "x", "history": []}, "history: the model takes no earlier turns"),
        ("/vqa", {"question": "x", "template": "{}"}, "template: the model takes no template"),
        (
            "/vqa",
            {"question": "x", "images": [b64(PICTURES[0])] * 2, "image": None},
            "image: 2 given, at most 1 allowed",
        ),
        ("/caption", {}, "does not have the task caption"),
    ],
    "vilt match": [
        ("/match", {"text": "x", "head": "itc"}, "head: the model tiny has itm, not itc"),
        ("/match", {"text": "x", "video": True}, "video: the model tiny does not take it"),
        ("/embed", {}, "does not have the task embed"),
        ("/classify", {"label": ["x", "a"]}, "head: the model tiny has itm, not itc"),
        (
            "/rerank",
            {"query": {"image": b64(PICTURES[0])}, "documents": ["a", "b"]},
            "tiny has no itc, by which documents",
        ),
    ],
    "vilt-nlvr2": [("/vqa", {"question": "x"}, "image: 1 given, the model takes 2")],
}


@pytest.mark.parametrize("kind", CANNOT)
def test_what_they_cannot_is_told(kind: str, labs: Callable[[str], Lab]) -> None:
    for path, fields, reason in CANNOT[kind]:
        image = {} if path == "/rerank" else {"image": b64(PICTURES[0])}
        status, problem = labs(kind).service.refused(path, image | fields)
        assert (status, reason in problem["detail"]) == (422, True), problem


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_other_dtypes_load_and_answer(kind: str, dtype: str, tmp_path: Path) -> None:
    """Loading warms up, and checks that what is computed is finite."""
    [model] = load("tiny", catalog=catalog_of(kind, tmp_path), device="cpu", dtype=dtype, threads=1)
    assert {checkpoint.dtype for checkpoint in model.checkpoints.values()} == {dtype}
