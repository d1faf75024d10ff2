"""Embeddings in other spaces than ITC's: the states before the projections. And how vectors are written.

Source: `extract_features` of LAVIS models/blip_models/blip_feature_extractor.py and blip2_models/blip2_qformer.py.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from app.errors import InvalidInputError
from app.inference import Inference
from app.wire.answers import EmbedAnswer, Embedding
from app.wire.forms import Form
from app.wire.schemas import EmbedFields
from models.base import Checkpoint, Op, ServedModel
from models.inputs import StatesInput
from models.outputs import Scores

FEW_NUMBERS = 2**15  # converted in about a millisecond
T = TypeVar("T")


async def states(
    inference: Inference, form: Form[EmbedFields], model: ServedModel, checkpoint: Checkpoint
) -> EmbedAnswer:
    """Of each image, text, or pair of both; equal ones are computed once."""
    fields, capabilities = form.fields, checkpoint.heads.capabilities
    if fields.space not in capabilities.spaces:
        raise InvalidInputError(f"space: the model {model.name} has {', '.join(capabilities.spaces)}")
    number = max(len(form.images), len(fields.text))
    digests: list[bytes | None] = [image.digest for image in form.images] or [None]
    texts: list[str | None] = [*fields.text] or [None]
    wanted = list(zip(_spread(digests, number), _spread(texts, number), strict=True))
    distinct = list(dict.fromkeys(wanted))
    inference.admit(checkpoint, len(form.distinct_images), Op.SCORE, {(StatesInput, fields.space): len(distinct)})
    pooling = fields.pooling or "none"
    [prepared] = await inference.prepare(checkpoint.heads, [StatesInput(fields.space, one, pooling) for one in texts])
    items = dict(zip(texts, prepared, strict=True))
    features = {
        image.digest: each
        for image, each in zip(form.images, await inference.features(checkpoint, form.images), strict=True)
    }
    [vectors] = await inference.score(
        checkpoint.heads,
        [replace(items[text], features=None if digest is None else features[digest]) for digest, text in distinct],
    )
    several = bool(capabilities.pooling) and pooling != "mean" and fields.space != "text"
    written = dict(zip(distinct, await embeddings(inference, vectors, several, fields.encoding), strict=True))
    answer: EmbedAnswer = {"model": model.name, "dimensions": vectors[0].shape[-1], "images": [], "texts": []}
    every = [written[one] for one in wanted]
    match fields.space:
        case "image":
            return answer | {"images": every}
        case "text":
            return answer | {"texts": every}
        case _:
            return answer | {"pairs": every}


def _spread(values: list[T], number: int) -> list[T]:
    """A single one is that of all."""
    return values * number if len(values) == 1 else values


async def embeddings(inference: Inference, every: Sequence[Scores], several: bool, encoding: str) -> list[Embedding]:
    """Each as `_embedding` writes it."""
    return await inference.on_cpu(
        lambda: [_embedding(vectors, several, encoding) for vectors in every],
        small=sum(vectors.size for vectors in every) <= FEW_NUMBERS,
    )


def _embedding(vectors: Scores, several: bool, encoding: str) -> Embedding:
    """`vectors`: (vectors, dimensions). One that is alone stands without a list around it."""
    if encoding == "base64":
        encoded = [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
        return {"embedding": encoded if several else encoded[0]}
    numbers = vectors.tolist()
    return {"embedding": numbers if several else numbers[0]}
