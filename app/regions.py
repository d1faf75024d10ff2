"""Where things are in an image: the masks of texts, and the boxes of what texts or an example name.

Sources: CLIPSeg's and OWL-ViT's processors in transformers, whose numbers these are, in the image's own pixels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from app.decoding.drawings import Boxes, Masks, Segments
from app.inference import Inference
from app.wire.forms import Form
from app.wire.regions import DetectAnswer, DetectFields, Detection, SegmentAnswer, SegmentFields
from models.base import Checkpoint, Op, Task
from models.inputs import DetectInput, ExampleInput, SegmentInput
from models.outputs import Features, Scores

Numbers = NDArray[np.float64]
TINY = np.finfo(np.float64).tiny  # boxes may have become lines, which overlap nothing
MOST_OVERLAP = 0.3  # of the boxes that look like an example: of those that overlap more, the best one stays


async def segment(inference: Inference, form: Form[SegmentFields]) -> SegmentAnswer | Response:
    """A map of each distinct text, made as large as the image."""
    fields, [image] = form.fields, form.images
    model, checkpoint = inference.served(Task.SEGMENT, fields.model)
    texts = list(dict.fromkeys(fields.text))
    inference.admit(checkpoint, 1, Op.SCORE, {SegmentInput: len(texts)})
    [items] = await inference.prepare(checkpoint.heads, [SegmentInput(text) for text in texts])
    [seen] = await inference.seen(checkpoint, [image])
    inference.check_pixels(len(texts), seen.size)
    [maps] = await inference.score(checkpoint.heads, [replace(item, features=seen.features) for item in items])
    inference.count_bytes(sum(one.nbytes for one in maps))
    scores = [float(one.max()) for one in maps]
    (rows, columns), levels = maps[0].shape, await inference.on_cpu(lambda: b"".join(map(_levels, maps)))
    if inference.prefers("image/png", "application/json"):
        names = tuple(_named(text, score) for text, score in zip(texts, scores, strict=True))
        png = await inference.draw(image, Segments(names, rows, columns, levels))
        return Response(png, media_type="image/png")
    masks = await inference.cut_out(Masks(*seen.size, rows, columns, levels))
    found = {text: (score, mask) for text, score, mask in zip(texts, scores, masks, strict=True)}
    return {
        "model": model.name,
        "segments": [{"text": text, "score": found[text][0], "mask": found[text][1]} for text in fields.text],
    }


async def detect(inference: Inference, form: Form[DetectFields]) -> DetectAnswer | Response:
    """What is at each place that the model looks at: the text that fits it best, if it fits well enough."""
    fields, image = form.fields, form.images[0]
    model, checkpoint = inference.served(Task.DETECT, fields.model)
    texts = list(dict.fromkeys(fields.text))
    work = {DetectInput: len(texts)} if texts else {DetectInput: 1, ExampleInput: 1}
    inference.admit(checkpoint, len(form.distinct_images), Op.SCORE, work)
    [items] = await inference.prepare(checkpoint.heads, [DetectInput(text) for text in texts])
    seen, *example = await inference.seen(checkpoint, form.images)
    if example:
        query = await _query(inference, checkpoint, example[0].features)
        [items] = await inference.prepare(checkpoint.heads, [DetectInput(query)])
    [found] = await inference.score(checkpoint.heads, [replace(item, features=seen.features) for item in items])
    detections = await inference.on_cpu(
        lambda: _detections(fields, texts, np.array(found, np.float64), checkpoint.preprocessing.extent(seen.size))
    )
    if inference.prefers("image/png", "application/json"):
        return Response(await inference.draw(image, _drawing(texts, detections)), media_type="image/png")
    return {"model": model.name, "detections": detections}


async def _query(inference: Inference, checkpoint: Checkpoint, features: Features) -> Scores:
    [[item]] = await inference.prepare(checkpoint.heads, [ExampleInput()])
    [[query]] = await inference.score(checkpoint.heads, [replace(item, features=features)])
    return query


def _detections(fields: DetectFields, texts: list[str], found: Numbers, extent: tuple[int, int]) -> list[Detection]:
    """`found`: `(queries, places, 5)`, as `DetectInput` has them. `extent`: pixels of what the boxes are shares of."""
    best = found[:, :, 0].argmax(0)  # (places,)
    scores = found[best, np.arange(len(best)), 0]
    boxes = found[0, :, 1:] * np.array([*extent, *extent])
    order = [place for place in np.argsort(-scores, kind="stable").tolist() if scores[place] >= fields.threshold]
    if not texts:
        order = _apart(order, boxes, fields.top_k)
    return [
        {
            "text": texts[best[place]] if texts else None,
            "score": float(scores[place]),
            "box": boxes[place].tolist(),
        }
        for place in order[: fields.top_k]
    ]


def _apart(order: list[int], boxes: Numbers, most: int) -> list[int]:
    """The first so many that overlap none before them by more than MOST_OVERLAP of their union."""
    kept: list[int] = []
    for place in order:
        if len(kept) < most and not (_overlaps(boxes[place], boxes[kept]) > MOST_OVERLAP).any():
            kept.append(place)
    return kept


def _overlaps(box: Numbers, others: Numbers) -> Numbers:
    """Intersection over union with each of `(boxes, 4)`."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = sides.clip(0).prod(1)
    of_both = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - common
    return np.asarray(common / np.maximum(of_both, TINY))


def _drawing(texts: list[str], detections: list[Detection]) -> Boxes:
    kinds = {text: kind for kind, text in enumerate(texts)}
    return Boxes(
        tuple((left, top, right, bottom) for left, top, right, bottom in (one["box"] for one in detections)),
        tuple(_named(one["text"] or "", one["score"]) for one in detections),
        tuple(kinds.get(one["text"] or "", 0) for one in detections),
    )


def _named(text: str, score: float) -> str:
    return f"{text} {score:.2f}".strip()


def _levels(probabilities: Scores) -> bytes:
    """0..1 -> 0..255"""
    return np.rint(255 * probabilities).astype(np.uint8).tobytes()
