"""The joint loss ITC + ITM + LM (BLIP: Li et al. 2022, section 3.2; BLIP-2: Li et al. 2023, section 3.2, where LM is
called ITG), the tower run once per picture."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.attention import Source
from training.data import JointTexts, Texts


class Joined(Protocol):
    """A model in joint training. `seen`: what the text looks at, `(n, tokens, width)`."""

    log_temperature: nn.Parameter  # of ITC

    def similarity(self, seen: Tensor, words: Tensor) -> Tensor:
        """ITC's cosines of n pictures with embedded texts: (n, texts)."""

    def embed_texts(self, lines: Texts) -> Tensor:
        """ITC's unit vectors (lines, dimensions)."""

    def look_at(self, seen: Tensor) -> Source: ...

    def match(self, source: Source, lines: Texts) -> Tensor:
        """ITM's two logits for each line against its source: (lines, 2)."""

    def caption_loss(self, seen: Tensor, captions: Texts) -> Tensor: ...


def joint_loss(model: Joined, seen: Tensor, batch: JointTexts) -> Tensor:
    return retrieval_loss(model, seen, batch) + model.caption_loss(seen, batch.captions)


def retrieval_loss(model: Joined, seen: Tensor, batch: JointTexts) -> Tensor:
    """ITC + ITM, by which the authors fine-tune for retrieval (Li et al. 2022, section 5.1)."""
    similarity = scaled_similarity(model, seen, batch)
    return contrastive_loss(similarity, batch.true) + matching_loss(model, seen, batch, similarity.detach())


def scaled_similarity(model: Joined, seen: Tensor, batch: JointTexts) -> Tensor:
    """ITC's logits of the pictures against their texts and the short ones: (n, n + short)."""
    words = torch.cat([model.embed_texts(batch.said), model.embed_texts(batch.short)])
    return model.similarity(seen, words) / model.log_temperature.exp().clamp(min=0.01)


def contrastive_loss(similarity: Tensor, true: Tensor) -> Tensor:
    """ITC. A picture may have several true texts and a text several pictures: the target is spread over them."""
    target = true.float()
    to_text = F.cross_entropy(similarity, target / target.sum(1, keepdim=True))
    used = true.any(0)  # a short text may be true of no picture
    shown = target[:, used].T
    to_image = F.cross_entropy(similarity[:, used].T, shown / shown.sum(1, keepdim=True))
    return (to_text + to_image) / 2


def matching_loss(model: Joined, seen: Tensor, batch: JointTexts, similarity: Tensor) -> Tensor:
    """ITM. True: each picture with its text. False: each picture with a false text that ITC likes, and with true ones
    in which a word was changed; each text with a false picture that ITC likes."""
    number = len(seen)
    said, own = join(batch.said, batch.short), torch.arange(number)
    false_texts = torch.multinomial(liked(similarity, batch.true), 1)[:, 0]
    likely = liked(similarity[:, :number].T, batch.true[:, :number].T)
    some = own[likely.sum(1) > 0]  # a text may be true of every picture
    false_pictures = torch.multinomial(likely[some], 1)[:, 0]
    lines = interleave(batch.said, said.take(false_texts), *batch.spoilt)
    each = 2 + len(batch.spoilt)  # of a picture
    source, parts = model.look_at(seen), lines.by_length(number, each)
    logits = [model.match(source, lines.take(part)) for part in parts]
    logits.append(model.match(model.look_at(seen[false_pictures]), batch.said.take(some)))
    target = torch.cat([*(part % each == 0 for part in parts), torch.zeros(len(some), dtype=torch.bool)]).long()
    weight = torch.tensor([1.0, each / 2])  # a true line has half the weight of the `each` false ones that go with it
    return F.cross_entropy(torch.cat(logits), target, weight=weight)


def liked(similarity: Tensor, true: Tensor) -> Tensor:
    """ITC's distribution over the false ones in each row, from which hard negatives are drawn."""
    return (F.softmax(similarity, 1) + 1e-6).masked_fill(true, 0)


def pad(lines: Texts, width: int) -> Texts:
    missing = (0, width - lines.ids.shape[1])
    return Texts(F.pad(lines.ids, missing), F.pad(lines.mask, missing))


def join(first: Texts, second: Texts) -> Texts:
    """The lines of the first, then those of the second."""
    width = max(first.ids.shape[1], second.ids.shape[1])
    first, second = pad(first, width), pad(second, width)
    return Texts(torch.cat([first.ids, second.ids]), torch.cat([first.mask, second.mask]))


def interleave(*columns: Texts) -> Texts:
    """Line 0 of each column, then line 1 of each, ..."""
    width = max(column.ids.shape[1] for column in columns)
    padded = [pad(column, width) for column in columns]
    ids, mask = (torch.stack(parts, 1).flatten(0, 1) for parts in zip(*((p.ids, p.mask) for p in padded), strict=True))
    return Texts(ids, mask)
