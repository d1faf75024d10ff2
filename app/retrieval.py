"""Classifying and re-ranking: views of what /match and /embed compute.

Sources: CLIP's and LAVIS' zero-shot classification, with ensembles of templates; the two-stage ranking of
salesforce/BLIP train_retrieval.py and LAVIS compute_sim_matrix, ITC first, then ITM for the best k.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from app.engine.texts import TextKey
from app.errors import InvalidInputError
from app.inference import Inference
from app.tasks import check_video, matching_heads, softmax
from app.wire.forms import Form, Upload, distinct
from app.wire.retrieval import (
    ClassifyAnswer,
    ClassifyFields,
    LabelScore,
    PairExtras,
    PlainLabel,
    RerankAnswer,
    RerankAsked,
    RerankFields,
    RerankResult,
    Side,
    TextResult,
    ZeroShotFields,
    read_rerank,
)
from models.base import Checkpoint, Item, Op, ServedModel, Task
from models.inputs import ImageEmbeddingInput, PairInput, TextInput
from models.outputs import Features, Scores

Numbers = NDArray[np.float64]
HELD_BACK = {"itm": 0.0, "sum": -100.0}  # the score of what ITC ruled out; the authors' matrices hold -100
FEW_CHARS = 2**18  # hashed in about a millisecond
TEXTS_AT_ONCE = 1024  # each is a task of the event loop
FEW_SCORES = 4096  # over all images: sorted and written in a few milliseconds


async def classify(request: Request) -> Response:
    inference = Inference(request)
    form = await inference.read(ClassifyFields)
    answer = await _classes(inference, form)
    body: ClassifyAnswer | list[PlainLabel] = answer
    if isinstance(form.fields, ZeroShotFields):
        body = [{"label": one["label"], "score": one["score"]} for one in answer["classes"][0]]
    return Response(await inference.write(body), media_type="application/json")


async def _classes(inference: Inference, form: Form[ClassifyFields]) -> ClassifyAnswer:
    fields = form.fields
    model, checkpoint = inference.served(Task.MATCH, fields.model)
    matching_heads(fields.head, model, checkpoint)
    images = form.distinct_images
    by_head = _by_itm if fields.head == "itm" else _by_itc
    scores, cosines = await by_head(inference, checkpoint, fields, images)
    rows = await inference.on_cpu(
        lambda: [_best(fields, *row) for row in zip(scores, cosines, strict=True)], small=scores.size <= FEW_SCORES
    )
    classes = {image.digest: row for image, row in zip(images, rows, strict=True)}
    return {"model": model.name, "classes": [classes[image.digest] for image in form.images]}


async def _by_itc(
    inference: Inference, checkpoint: Checkpoint, fields: ClassifyFields, images: Sequence[Upload]
) -> tuple[Numbers, Numbers]:
    """The softmax of the scaled cosines, or the sigmoid of each where there is a bias, and the cosines: `(images,
    labels)`. Without their scale they would be flat."""
    prompts = [prompt for label in fields.label for prompt in fields.prompts(label)]
    keys = await _keys(inference, checkpoint, prompts)
    known = _known(inference, keys)
    work = {ImageEmbeddingInput: len(images), TextInput: len(keys) - len(known)}
    inference.admit(checkpoint, len(images), Op.SCORE, work)
    items = await _text_items(inference, checkpoint, [text for text in keys if text not in known])
    features = await inference.features(checkpoint, images)
    texts = known | await _text_vectors(inference, checkpoint, keys, items)
    shown = await _image_vectors(inference, checkpoint, features)
    cosines = await inference.on_cpu(
        lambda: _cosines(shown, _ensembles(texts, prompts, len(fields.template))),
        small=len(images) * len(prompts) <= FEW_SCORES,
    )
    logits, bias = (checkpoint.temperature or 1.0) * cosines, checkpoint.heads.capabilities.logit_bias
    return softmax(logits) if bias is None else sigmoid(logits + bias), cosines


async def _by_itm(
    inference: Inference, checkpoint: Checkpoint, fields: ClassifyFields, images: Sequence[Upload]
) -> tuple[Numbers, list[None]]:
    """Each label's own probability, or the softmax of the match logits over the labels: `(images, labels)`."""
    inference.admit(checkpoint, len(images), Op.SCORE, {PairInput: len(images) * len(fields.label)})
    [pairs] = await inference.prepare(checkpoint.heads, [PairInput(*fields.prompts(label)) for label in fields.label])
    features = await inference.features(checkpoint, images)
    items = [replace(pair, features=each) for each in features for pair in pairs]
    [scored] = await inference.score(checkpoint.heads, items)
    logits = np.array(scored, np.float64).reshape(len(images), -1, 2)
    scores = softmax(logits)[:, :, 1] if fields.multi_label else softmax(logits[:, :, 1])
    return scores, [None] * len(images)


def _best(fields: ClassifyFields, scores: Numbers, cosines: Numbers | None) -> list[LabelScore]:
    """Of one image, best first."""
    best: list[LabelScore] = []
    for index in np.argsort(-scores, kind="stable")[: fields.top_k]:
        one: LabelScore = {"label": fields.label[index], "score": float(scores[index])}
        if cosines is not None:
            one["itc"] = float(cosines[index])
        best.append(one)
    return best


async def rerank(request: Request) -> Response:
    inference = Inference(request)
    asked = await inference.read_json(read_rerank)
    answer = await _ranked(inference, asked)
    body = answer if asked.fields.texts is None else [_plain(one) for one in answer["results"]]
    return Response(await inference.write(body), media_type="application/json")


async def _ranked(inference: Inference, asked: RerankAsked) -> RerankAnswer:
    """ITC of all, ITM of the best: with no more documents than the prefilter lets pass, of all."""
    fields = asked.fields
    model, checkpoint = inference.served(Task.MATCH, fields.model)
    check_video(fields.video, model, checkpoint)
    how = _score(fields, model, checkpoint)
    number = len(fields.given)
    num_pairs = 0 if how == "itc" else min(fields.prefilter, number)
    images = list(distinct(asked.images).values())
    keys = await _keys(inference, checkpoint, asked.texts)
    known = _known(inference, keys)
    work = {ImageEmbeddingInput: len(images), TextInput: len(keys) - len(known), PairInput: num_pairs}
    inference.admit(checkpoint, len(images), Op.SCORE, work, video=fields.video)
    text_items = await _text_items(inference, checkpoint, [text for text in keys if text not in known])
    if fields.video:
        await inference.fetch(images)  # all of them, before the first is encoded
        encoded: list[Features] = [await inference.video(checkpoint, [image]) for image in images]
    else:
        encoded = await inference.features(checkpoint, images)
    texts = known | await _text_vectors(inference, checkpoint, keys, text_items)
    shown = await _image_vectors(inference, checkpoint, encoded)
    digests = [image.digest for image in images]
    features, vectors = dict(zip(digests, encoded, strict=True)), dict(zip(digests, shown, strict=True))
    # One side is the query alone: (documents, 1) or (1, documents).
    itc = _cosines([vectors[one.digest] for one in asked.images], [texts[text] for text in asked.texts]).reshape(number)
    best = np.argsort(-itc, kind="stable")[:num_pairs].tolist()
    [pairs] = await inference.prepare(checkpoint.heads, [PairInput(asked.text(index)) for index in best])
    items = [
        replace(pair, features=features[asked.image(index).digest]) for pair, index in zip(pairs, best, strict=True)
    ]
    [logits] = await inference.score(checkpoint.heads, items)
    results = _results(asked, how, itc, best, np.array(logits, np.float64).reshape(-1, 2))
    tokens = inference.num_prompt_tokens
    return {
        "id": f"rerank-{inference.request_id}",
        "model": fields.model or model.name,
        "results": results[: fields.top_n],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _score(fields: RerankFields, model: ServedModel, checkpoint: Checkpoint) -> str:
    """By which it ranks. Raises InvalidInputError."""
    has = checkpoint.heads.capabilities.heads
    if "itc" not in has:
        raise InvalidInputError(
            f"model: {model.name} has no itc, by which documents are ranked first; /match scores all"
        )
    if fields.score is None:
        return has[0]
    if fields.score != "itc" and "itm" not in has:
        raise InvalidInputError(f"score: the model {model.name} has {', '.join(has)}, not itm")
    return fields.score


def _results(asked: RerankAsked, how: str, itc: Numbers, best: Sequence[int], logits: Numbers) -> list[RerankResult]:
    """Best first: those with ITM by their score, then the others by ITC."""
    itm = dict(zip(best, softmax(logits)[:, 1].tolist(), strict=True))
    sums = dict(zip(best, (logits[:, 1] + itc[list(best)]).tolist(), strict=True))
    scores = {"itm": itm, "sum": sums, "itc": dict(enumerate(itc.tolist()))}[how]
    others = [index for index in np.argsort(-itc, kind="stable").tolist() if index not in scores]
    results: list[RerankResult] = []
    for index in [*sorted(scores, key=lambda one: -scores[one]), *others]:
        extras: PairExtras = {"itc": float(itc[index])}
        if index in itm:
            extras["itm"] = itm[index]
        result: RerankResult = {
            "index": index,
            "relevance_score": scores[index] if index in scores else HELD_BACK[how],
            "blip": extras,
        }
        if asked.fields.return_documents or asked.fields.return_text:
            result["document"] = _document(asked.fields.given[index])
        results.append(result)
    return results


def _document(given: str | Side) -> dict[str, str]:
    return {"text": given} if isinstance(given, str) else given.model_dump(exclude_none=True)


def _plain(result: RerankResult) -> TextResult:
    """As text-embeddings-inference answers."""
    plain: TextResult = {"index": result["index"], "score": result["relevance_score"]}
    return {**plain, "text": result["document"]["text"]} if "document" in result else plain


# --- arithmetic -----------------------------------------------------------------------------------------------------


async def _keys(inference: Inference, checkpoint: Checkpoint, texts: Sequence[str]) -> dict[str, TextKey]:
    """Under which each distinct text is kept."""
    unit = checkpoint.heads.unit
    return await inference.on_cpu(
        lambda: {text: TextKey.of(unit, text) for text in texts}, small=sum(map(len, texts)) <= FEW_CHARS
    )


def _known(inference: Inference, keys: Mapping[str, TextKey]) -> dict[str, Scores]:
    """The embeddings that are kept."""
    return {text: vector for text, key in keys.items() if (vector := inference.texts.get(key)) is not None}


async def _text_items(inference: Inference, checkpoint: Checkpoint, texts: Sequence[str]) -> dict[str, Item]:
    [items] = await inference.prepare(checkpoint.heads, [TextInput(text) for text in texts])
    return dict(zip(texts, items, strict=True))


async def _text_vectors(
    inference: Inference, checkpoint: Checkpoint, keys: Mapping[str, TextKey], items: Mapping[str, Item]
) -> dict[str, Scores]:
    """Embeddings `(1, dimensions)`, which are kept from now on."""
    computed: dict[str, Scores] = {}
    texts = list(items)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = texts[start : start + TEXTS_AT_ONCE]
        [vectors] = await inference.score(checkpoint.heads, [items[text] for text in part])
        for text, vector in zip(part, vectors, strict=True):
            computed[text] = vector
            inference.texts.keep(keys[text], vector)
    return computed


async def _image_vectors(inference: Inference, checkpoint: Checkpoint, features: Sequence[Features]) -> list[Scores]:
    """Embeddings `(vectors, dimensions)` of each image."""
    [[item]] = await inference.prepare(checkpoint.heads, [ImageEmbeddingInput()])
    [vectors] = await inference.score(checkpoint.heads, [replace(item, features=each) for each in features])
    return vectors


def sigmoid(values: Numbers) -> Numbers:
    """Without overflow: of what is far below zero, 0."""
    return np.asarray(0.5 * (1 + np.tanh(values / 2)))


def _ensembles(vectors: Mapping[str, Scores], prompts: Sequence[str], num_templates: int) -> list[Scores]:
    """One vector `(1, dimensions)` for each label: the mean of its templates', as a unit vector."""
    if num_templates == 1:
        return [vectors[prompt] for prompt in prompts]
    stacked = np.stack([vectors[prompt][0] for prompt in prompts])
    means = stacked.reshape(-1, num_templates, stacked.shape[-1]).mean(1)
    return list((means / np.linalg.norm(means, axis=1, keepdims=True))[:, None])


def _cosines(images: Sequence[Scores], texts: Sequence[Scores]) -> Numbers:
    """`(images, texts)`; of an image with several vectors the nearest counts."""
    together = np.concatenate(texts)  # (texts, dimensions)
    return np.array([(vectors @ together.T).max(0) for vectors in images], np.float64)
