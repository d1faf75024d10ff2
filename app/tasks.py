"""What the service does: its tasks, from validated fields to an answer (CapFilt, made of two, is in capfilt.py).

Each checks and tokenises first, then asks for the features of its images (which fetches those that are URLs, and
decodes those that are new), and only then puts its own work into the queue. Bad input never gets there, and nobody is
asked for the picture of a request that is refused without it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from app.decoding.drawings import Heat
from app.embeddings import embeddings, states
from app.errors import InvalidInputError
from app.http.endpoints import Function
from app.inference import F, Inference
from app.wire.answers import (
    ITM_HEADER,
    Answer,
    Caption,
    CaptionAnswer,
    EmbedAnswer,
    LocalizeAnswer,
    MatchAnswer,
    PairScores,
    RankedCandidate,
    Sentence,
    VqaAnswer,
)
from app.wire.forms import Form
from app.wire.schemas import CaptionFields, EmbedFields, LocalizeFields, MatchFields, VqaFields
from models.base import HEADS, Capabilities, Checkpoint, Item, Op, ServedModel, Task
from models.inputs import (
    CaptionInput,
    ImageEmbeddingInput,
    LikelihoodInput,
    LocalizeInput,
    PairInput,
    QuestionInput,
    RankInput,
    TextInput,
)
from models.outputs import Features, Generated, Scores, Video

FEW_CANDIDATES = 4096  # over all questions: ranked in about a millisecond


def answering(
    fields: type[F], task: Callable[[Inference, Form[F]], Awaitable[Mapping[str, Any] | Response]]
) -> Function:
    """What every request is: its form is read, its task answered, its answer written, unless that is a picture."""

    async def answer(request: Request) -> Response:
        inference = Inference(request)
        form = await inference.read(fields)
        answered = await task(inference, form)
        if isinstance(answered, Response):
            return answered
        return Response(await inference.write(answered), media_type="application/json")

    return answer


async def caption(inference: Inference, form: Form[CaptionFields]) -> CaptionAnswer:
    """One caption, and its alternatives, for each image."""
    fields = form.fields
    model, checkpoint = inference.served(Task.CAPTION, fields.model)
    inference.admit(checkpoint, len(form.distinct_images), Op.GENERATE, {CaptionInput: len(form.images)})
    [[item]] = await inference.prepare(checkpoint.heads, [CaptionInput(fields.prompt, fields.settings())])
    features = await inference.features(checkpoint, form.images)
    items = [replace(item, features=each) for each in features]
    generated = await inference.generate(checkpoint.heads, items, [fields.prompt or ""] * len(items))
    return {"model": model.name, "captions": [_caption(one) for one in generated]}


async def vqa(inference: Inference, form: Form[VqaFields]) -> VqaAnswer:
    """All questions are about the one image, or the two as one, and each is encoded once."""
    fields = form.fields
    model, checkpoint = inference.served(Task.VQA, fields.model)
    capabilities = checkpoint.heads.capabilities
    _check_question(fields, len(form.images), capabilities)
    candidates = fields.candidates or capabilities.answers
    op, asked = (Op.SCORE, RankInput) if candidates else (Op.GENERATE, QuestionInput)
    inference.admit(checkpoint, len(form.distinct_images), op, {asked: len(fields.question)})
    template = fields.template or model.template
    [items] = await inference.prepare(checkpoint.heads, _question_inputs(fields, template, ranked=bool(candidates)))
    features = await inference.features(checkpoint, form.images)
    shown = features[0] if len(features) == 1 else Video(tuple(features))
    items = [replace(item, features=shown) for item in items]
    if candidates:
        [scores] = await inference.score(checkpoint.heads, items)
        answers = await inference.on_cpu(
            lambda: [
                _ranked(question, candidates, one, fields.num_returned)
                for question, one in zip(fields.question, scores, strict=True)
            ],
            small=len(fields.question) * len(candidates) <= FEW_CANDIDATES,
        )
    else:
        generated = await inference.generate(checkpoint.heads, items, fields.question)
        answers = [_answer(question, one) for question, one in zip(fields.question, generated, strict=True)]
    for answer, item in zip(answers, items, strict=True):
        if item.history_used is not None:
            answer["history_used"] = item.history_used
    return {"model": model.name, "answers": answers}


async def match(inference: Inference, form: Form[MatchFields]) -> MatchAnswer:
    """Every image, or the one video, against every text. ITM runs once for each pair, ITC once for each image and each
    text."""
    fields = form.fields
    if fields.head == "lm":
        return await _likelihoods(inference, form)
    model, checkpoint = inference.served(Task.MATCH, fields.model)
    check_video(fields.video, model, checkpoint)
    heads = matching_heads(fields.head, model, checkpoint)
    itm, itc = "itm" in heads, "itc" in heads
    texts = list(dict.fromkeys(fields.text))
    num_images = 1 if fields.video else len(form.distinct_images)
    of_both = {ImageEmbeddingInput: num_images, TextInput: len(texts)} if itc else {}
    of_pairs = {PairInput: num_images * len(texts)} if itm else {}
    inference.admit(checkpoint, num_images, Op.SCORE, of_both | of_pairs, video=fields.video)
    pair_items, text_items, image_items = await inference.prepare(
        checkpoint.heads,
        [PairInput(text) for text in fields.text if itm],
        [TextInput(text) for text in fields.text if itc],
        [ImageEmbeddingInput()] if itc else [],
    )
    pair_items, text_items = _distinct(fields.text, pair_items), _distinct(fields.text, text_items)
    features = await _looked_at(inference, checkpoint, form, fields.video)
    logits, text_vectors, image_vectors = await inference.score(
        checkpoint.heads,
        [replace(item, features=each) for each in features for item in pair_items],
        text_items,
        [replace(item, features=each) for each in features for item in image_items],
    )
    rows: list[dict[str, PairScores]] = [{} for _ in features]
    for i, row in enumerate(rows):
        for t, text in enumerate(texts):
            pair = row[text] = itm_scores(logits[i * len(texts) + t]) if itm else {}
            if itc:
                pair["itc"] = float((image_vectors[i] @ text_vectors[t].T).max())  # (vectors, D) x (D, 1)
            if itm and itc:
                pair["sum"] = pair["itm_logits"][1] + pair["itc"]
    return {"model": model.name, "scores": _of_all(form, rows)}


async def _likelihoods(inference: Inference, form: Form[MatchFields]) -> MatchAnswer:
    """Of every text as a caption of every image."""
    fields = form.fields
    model, checkpoint = inference.served(Task.CAPTION, fields.model)
    images, texts = form.distinct_images, list(dict.fromkeys(fields.text))
    inference.admit(checkpoint, len(images), Op.SCORE, {LikelihoodInput: len(images) * len(texts)})
    [items] = await inference.prepare(checkpoint.heads, [LikelihoodInput(text) for text in fields.text])
    features = await inference.features(checkpoint, images)
    items = _distinct(fields.text, items)
    [scores] = await inference.score(
        checkpoint.heads, [replace(item, features=each) for each in features for item in items]
    )
    means = iter([float(score[0]) for score in scores])
    rows: list[dict[str, PairScores]] = [{text: {"lm": next(means)} for text in texts} for _ in features]
    return {"model": model.name, "scores": _of_all(form, rows)}


async def embed(inference: Inference, form: Form[EmbedFields]) -> EmbedAnswer:
    """The vectors that ITC compares, or the states before them."""
    fields = form.fields
    model, checkpoint = inference.served(Task.EMBED, fields.model)
    check_video(fields.video, model, checkpoint)
    if fields.space != "itc":
        return await states(inference, form, model, checkpoint)
    poolings = checkpoint.heads.capabilities.pooling
    if fields.pooling is not None and fields.pooling not in poolings:
        raise InvalidInputError(f"pooling: the model {model.name} has one vector for each image")
    texts = list(dict.fromkeys(fields.text))
    num_images = 1 if fields.video else len(form.distinct_images)
    work = {ImageEmbeddingInput: num_images, TextInput: len(texts)}
    inference.admit(checkpoint, num_images, Op.SCORE, work, video=fields.video)
    text_items, [image_item] = await inference.prepare(
        checkpoint.heads, [TextInput(text) for text in fields.text], [ImageEmbeddingInput(fields.pooling or "none")]
    )
    text_items = _distinct(fields.text, text_items)
    features = await _looked_at(inference, checkpoint, form, fields.video)
    text_vectors, image_vectors = await inference.score(
        checkpoint.heads, text_items, [replace(image_item, features=each) for each in features]
    )
    several = bool(poolings) and fields.pooling != "mean"
    of_image = await embeddings(inference, image_vectors, several, fields.encoding)
    of_text = dict(zip(texts, await embeddings(inference, text_vectors, False, fields.encoding), strict=True))
    return {
        "model": model.name,
        "dimensions": (text_vectors or image_vectors)[0].shape[-1],
        "images": [of_image[place] for place in _places(form)],
        "texts": [of_text[text] for text in fields.text],
    }


async def localize(inference: Inference, form: Form[LocalizeFields]) -> LocalizeAnswer | Response:
    """Where in the image the text is: a map of numbers, or the image with the map over it."""
    fields = form.fields
    model, checkpoint = inference.served(Task.LOCALIZE, fields.model)
    as_picture = inference.prefers("image/png", "application/json")
    if as_picture and fields.tokens:
        raise InvalidInputError("tokens: only in JSON, and `Accept` asks for a picture")
    inference.admit(checkpoint, 1, Op.LOCALIZE, {LocalizeInput: 1})
    [[item]] = await inference.prepare(checkpoint.heads, [LocalizeInput(fields.text, fields.layer)])
    [features] = await inference.features(checkpoint, form.images)
    localized = await inference.localize(checkpoint.heads, replace(item, features=features))
    heat, itm = localized.maps.mean(0), itm_scores(localized.logits)["itm"]
    if as_picture:
        png = await inference.draw(form.images[0], _levels(heat))
        return Response(png, media_type="image/png", headers={ITM_HEADER: str(itm)})
    answer: LocalizeAnswer = {
        "model": model.name,
        "text": fields.text,
        "itm": itm,
        "grid": list(heat.shape),
        "map": heat.tolist(),
    }
    if fields.tokens:
        named = zip(localized.tokens, localized.maps, strict=True)
        answer["tokens"] = [{"token": token, "map": own.tolist()} for token, own in named]
    return answer


# --- checks and answers ---------------------------------------------------------------------------------------------


def _check_question(fields: VqaFields, num_images: int, capabilities: Capabilities) -> None:
    if num_images > (most := capabilities.num_images):
        raise InvalidInputError(f"image: {num_images} given, at most {most} allowed")
    if num_images < most:
        raise InvalidInputError(f"image: {num_images} given, the model takes {most}")
    if not (fields.candidates or capabilities.answers) and fields.top_candidates is not None:
        raise InvalidInputError("top_candidates: only with `candidates`")
    if capabilities.answers and (generating := fields.generating):
        raise InvalidInputError(f"{', '.join(generating)}: the model writes no answer, it chooses one")
    if fields.history is not None and not capabilities.history:
        raise InvalidInputError("history: the model takes no earlier turns")
    if fields.template is not None and not capabilities.template:
        raise InvalidInputError("template: the model takes no template")


def check_video(video: bool, model: ServedModel, checkpoint: Checkpoint) -> None:
    """Raises InvalidInputError: it is asked for, and the model does not take it."""
    if video and not checkpoint.heads.capabilities.video:
        raise InvalidInputError(f"video: the model {model.name} does not take it: its authors have no method for it")


def matching_heads(head: str | None, model: ServedModel, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Those that are asked for: `head` is one, or `both`; None: those that the model has. Raises InvalidInputError."""
    has = checkpoint.heads.capabilities.heads
    asked = has if head is None else HEADS if head == "both" else (head,)
    if missing := [one for one in asked if one not in has]:
        raise InvalidInputError(f"head: the model {model.name} has {', '.join(has)}, not {missing[0]}")
    return asked


async def _looked_at(
    inference: Inference, checkpoint: Checkpoint, form: Form[MatchFields] | Form[EmbedFields], video: bool
) -> Sequence[Features]:
    """The video, or the distinct images."""
    if video:
        return [await inference.video(checkpoint, form.images)]
    return await inference.features(checkpoint, form.distinct_images)


def _places(form: Form[MatchFields] | Form[EmbedFields]) -> list[int]:
    """Of each image among the distinct ones; the video is one."""
    if form.fields.video:
        return [0]
    places = {image.digest: place for place, image in enumerate(form.distinct_images)}
    return [places[image.digest] for image in form.images]


def _of_all(form: Form[MatchFields], rows: Sequence[Mapping[str, PairScores]]) -> list[list[PairScores]]:
    """`rows`: of what was looked at, the scores of each text."""
    return [[rows[place][text] for text in form.fields.text] for place in _places(form)]


def _distinct(texts: list[str], items: list[Item]) -> list[Item]:
    """One for each distinct text, in order; none if there are none."""
    return list(dict(zip(texts, items, strict=bool(items))).values())


def _question_inputs(fields: VqaFields, template: str | None, *, ranked: bool) -> list[QuestionInput | RankInput]:
    if not ranked:
        settings = fields.settings()
        return [QuestionInput(question, fields.turns, template, settings) for question in fields.question]
    candidates, k = tuple(fields.candidates or ()), fields.num_ranked
    return [RankInput(question, candidates, k, fields.turns, template) for question in fields.question]


def _caption(generated: Generated) -> Caption:
    best, *others = generated.sequences
    alternatives: list[Sentence] = [{"text": one.text, "confidence": one.confidence} for one in others]
    return {"text": best.text, "confidence": best.confidence, "alternatives": alternatives}


def _answer(question: str, generated: Generated) -> Answer:
    best = generated.sequences[0]
    return {"question": question, "answer": best.text, "confidence": best.confidence}


def _ranked(question: str, candidates: Sequence[str], probabilities: Scores, num_returned: int) -> Answer:
    order = np.argsort(-probabilities, kind="stable")[:num_returned]
    ranking: list[RankedCandidate] = [
        {"answer": candidates[index], "probability": float(probabilities[index])} for index in order
    ]
    best = ranking[0]
    return {
        "question": question,
        "answer": best["answer"],
        "confidence": best["probability"],
        "candidates": ranking,
    }


def _levels(heat: Scores) -> Heat:
    """From the coldest patch to the hottest, as in LAVIS; one heat everywhere is none."""
    spread = float(np.ptp(heat))
    levels = np.rint(255 * (heat - heat.min()) / spread) if spread else np.zeros_like(heat)
    rows, columns = heat.shape
    return Heat(rows, columns, levels.astype(np.uint8).tobytes())


def itm_scores(logits: Scores) -> PairScores:
    """`logits`: `(2,)`, [no match, match]."""
    return {"itm": float(softmax(logits.astype(np.float64))[1]), "itm_logits": logits.tolist()}


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis."""
    weights = np.exp(values - values.max(-1, keepdims=True, initial=-np.inf))
    return np.asarray(weights / weights.sum(-1, keepdims=True))
