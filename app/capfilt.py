"""CapFilt: a captioner writes captions for an image, and a filter keeps those that match it, and the web texts that do.

Source: Li et al. 2022 (BLIP), section 3.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from app.inference import Inference, work_of
from app.tasks import itm_scores
from app.wire.capfilt import CapfiltAnswer, CapfiltFields, JudgedImage, JudgedText, Source
from app.wire.forms import Form, Upload
from models.base import Checkpoint, InputError, Item, ModelRunner, Op, Task
from models.inputs import CaptionInput, PairInput
from models.outputs import Features

FEW_CAPTIONS = 16  # tokenised in about a millisecond


async def capfilt(inference: Inference, form: Form[CapfiltFields]) -> CapfiltAnswer:
    """Each text is scored once for its image."""
    fields, num_images = form.fields, len(form.images)
    model, matcher = inference.served(Task.CAPFILT, fields.model)
    captioner = model.checkpoints[Task.CAPTION]
    web = fields.texts(num_images)
    num_texts = sum(map(len, web)) + fields.num_captions * num_images
    num_distinct = len(form.distinct_images)
    inference.admit_work(
        work_of(captioner, num_distinct, Op.GENERATE, {CaptionInput: num_images})
        | work_of(matcher, num_distinct, Op.SCORE, {PairInput: num_texts})
    )
    [[caption]] = await inference.prepare(captioner.heads, [CaptionInput(None, fields.settings())])
    of_web = [text for texts in web for text in texts]
    [items] = await inference.prepare(matcher.heads, [PairInput(text) for text in of_web])
    pairs = dict(zip(of_web, items, strict=True))
    shown, seen = await _features(inference, captioner, matcher, form.images)
    generated = await inference.generate(
        captioner.heads, [replace(caption, features=each) for each in shown], [""] * num_images
    )
    synthetic = [[sequence.text for sequence in one.sequences] for one in generated]
    new = {text for texts in synthetic for text in texts} - pairs.keys()
    pairs |= await inference.on_cpu(partial(_readable, matcher.heads, new), small=len(new) <= FEW_CAPTIONS)
    judged = [
        {text: pairs[text] for text in (*texts, *more) if text in pairs}
        for texts, more in zip(web, synthetic, strict=True)
    ]
    [logits] = await inference.score(
        matcher.heads,
        [replace(item, features=each) for own, each in zip(judged, seen, strict=True) for item in own.values()],
    )
    scores = iter([itm_scores(one)["itm"] for one in logits])
    answer: list[JudgedImage] = []
    for texts, more, own in zip(web, synthetic, judged, strict=True):
        itm = {text: next(scores) for text in own}
        told = [_judged(fields, text, "web", itm[text]) for text in texts]
        told += [_judged(fields, text, "synthetic", itm[text]) for text in more if text in own]
        answer.append({"texts": _returned(fields, told)})
    return {"model": model.name, "images": answer}


async def _features(
    inference: Inference, captioner: Checkpoint, matcher: Checkpoint, images: Sequence[Upload]
) -> tuple[list[Features], list[Features]]:
    """For each of the two; those of BLIP have towers of their own."""
    shown = await inference.features(captioner, images)
    if (captioner.tower, captioner.preprocessing) == (matcher.tower, matcher.preprocessing):
        return shown, shown
    return shown, await inference.features(matcher, images)


def _readable(heads: ModelRunner, texts: Iterable[str]) -> dict[str, Item]:
    """Without captions that have no character which the filter reads: those are left out of the answer."""
    items: dict[str, Item] = {}
    for text in texts:
        with suppress(InputError):
            items[text] = heads.prepare(PairInput(text))
    return items


def _judged(fields: CapfiltFields, text: str, source: Source, itm: float) -> JudgedText:
    return {"text": text, "source": source, "itm": itm, "kept": itm >= fields.threshold}


def _returned(fields: CapfiltFields, texts: list[JudgedText]) -> list[JudgedText]:
    """Of one image."""
    if fields.keep == "best":
        return [max(texts, key=lambda one: one["itm"])] if texts else []
    return [one for one in texts if one["kept"]] if fields.keep == "filtered" else texts
