"""What is asked about a picture, and what becomes of the answer: one class a command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from app.bulk.plan import Picture
from app.bulk.results import Result, in_one_line
from app.start.bulk import Options
from blip_client import AsyncClient
from blip_client.results import Answer, PairScores


class Job(Protocol):
    task: str  # as /models lists it

    @property
    def columns(self) -> Sequence[str]:
        """Of a CSV, after the path."""

    async def ask(self, client: AsyncClient, image: bytes, picture: Picture) -> Result: ...


class _Said:
    """Texts as they are written."""

    def __init__(self, options: Options) -> None:
        self._prefix = options.prefix
        self._suffix = options.suffix

    def __call__(self, text: str) -> str:
        return f"{self._prefix}{in_one_line(text)}{self._suffix}"


class CaptionJob:
    columns = ("caption", "confidence")

    def __init__(self, options: Options) -> None:
        self.task = "caption" if options.question is None else "vqa"
        self._question = options.question
        self._asked = options.asked
        self._said = _Said(options)

    async def ask(self, client: AsyncClient, image: bytes, picture: Picture) -> Result:
        if self._question is not None:
            answered = await client.vqa(image, self._question, **self._asked)
            (answer,) = answered.answers
            return self._result(picture, answered.model, answer.answer, answer.confidence, {})
        captioned = await client.caption(image, **self._asked)
        (caption,) = captioned.captions
        others = [{"text": self._said(one.text), "confidence": one.confidence} for one in caption.alternatives]
        more = {"alternatives": others} if others else {}
        return self._result(picture, captioned.model, caption.text, caption.confidence, more)

    def _result(self, picture: Picture, model: str, text: str, confidence: float, more: Mapping[str, Any]) -> Result:
        said = self._said(text)
        record = {"caption": said, "confidence": confidence, **more, "model": model}
        return Result(picture.path, record, said, (said, confidence), confidence=confidence)


class VqaJob:
    task = "vqa"

    def __init__(self, options: Options) -> None:
        self._questions = list(options.question or ())
        self._asked = options.asked
        self._said = _Said(options)
        self.columns = [column for question in self._questions for column in (question, f"{question} confidence")]

    async def ask(self, client: AsyncClient, image: bytes, picture: Picture) -> Result:
        answered = await client.vqa(image, self._questions, **self._asked)
        record = {"answers": [self._answer(one) for one in answered.answers], "model": answered.model}
        text = self._said(", ".join(in_one_line(one.answer) for one in answered.answers))
        cells = [cell for one in answered.answers for cell in (in_one_line(one.answer), one.confidence)]
        least = min(one.confidence for one in answered.answers)
        return Result(picture.path, record, text, cells, confidence=least)

    def _answer(self, one: Answer) -> dict[str, Any]:
        return {"question": one.question, "answer": one.answer, "confidence": one.confidence}


class MatchJob:
    task = "match"

    def __init__(self, options: Options) -> None:
        self.columns = options.text or []
        self._asked = options.asked

    async def ask(self, client: AsyncClient, image: bytes, picture: Picture) -> Result:
        matched = await client.match(image, self.columns, **self._asked)
        pairs = list(zip(self.columns, matched.scores[0], strict=True))
        scores = [{"text": text, **one.model_dump(exclude_none=True)} for text, one in pairs]
        text = ", ".join(f"{_score(one):.4f} {in_one_line(text)}" for text, one in pairs)
        cells = [_score(one) for _, one in pairs]
        return Result(picture.path, {"scores": scores, "model": matched.model}, text, cells)


def _score(scores: PairScores) -> float:
    """The one that was asked for, ITM of both."""
    return next(one for one in (scores.itm, scores.itc, scores.lm) if one is not None)


class EmbedJob:
    task = "embed"
    columns = ()

    def __init__(self, options: Options) -> None:
        self._asked = options.asked

    async def ask(self, client: AsyncClient, image: bytes, picture: Picture) -> Result:
        embedded = await client.embed(image, **self._asked)
        (one,) = embedded.images
        return Result(picture.path, {"embedding": one.embedding, "model": embedded.model}, "", vectors=one.vectors)


class CapfiltJob:
    task = "capfilt"
    columns = ()

    def __init__(self, options: Options) -> None:
        self._asked = options.asked

    async def ask(self, client: AsyncClient, image: bytes, picture: Picture) -> Result:
        judged = await client.capfilt(image, picture.texts or None, **self._asked)
        texts = judged.images[0].texts
        kept = [one.text for one in texts if one.kept]
        record = {
            "texts": list(dict.fromkeys(kept)),
            "judged": [one.model_dump() for one in texts],
            "model": judged.model,
        }
        return Result(picture.path, record, ", ".join(kept))


JOBS: Mapping[str, type[CaptionJob | VqaJob | MatchJob | EmbedJob | CapfiltJob]] = {
    "caption": CaptionJob,
    "vqa": VqaJob,
    "match": MatchJob,
    "embed": EmbedJob,
    "capfilt": CapfiltJob,
}
