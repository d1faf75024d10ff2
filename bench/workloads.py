"""What is asked: seeded, the same for every contender. A sample is one piece of a client's work about one image."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

NUM_TOKENS = 20  # generated for every caption and answer, so that work is equal
# In words of the checkpoints' vocabulary: as many tokens as real ones have.
QUESTIONS = (
    "what is it?",
    "what is in the picture?",
    "what is the color of this?",
    "is this the color of it in the picture?",
    "what is the color of the picture of it in this picture, is it in it?",
)
TEXTS = tuple(
    f"{start} {end}"
    for start in ("picture of", "this is the color of", "what is in", "the picture of the color of")
    for end in ("it", "the picture", "this, the color of it", "it in the picture of this")
)
CAPTIONS = GREEDY, BEAMS = "caption, greedy", "caption, 3 beams"  # most goals are about them
MIX = ("caption",) * 4 + ("vqa",) * 3 + ("match",) * 2 + ("embed-image",)  # of ten
MORE_CLIENTS = 3.0  # many clients get as much time as so many cells of one: each of them waits for all others
SEEN_EVERY = 3  # in the mix, one image in this many was seen before


@dataclass(frozen=True, slots=True)
class Work:
    task: str  # caption, vqa, match, embed-image, embed-text
    picture: int | None = None
    texts: tuple[str, ...] = ()
    num_beams: int = 1
    num_tokens: int = NUM_TOKENS

    @property
    def num_answers(self) -> int:
        return max(1, len(self.texts))


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    unit: str  # of its rate
    make: Callable[[int, Iterator[int]], list[Work]]  # how many, numbers of pictures -> works
    light: bool = False  # a sample takes milliseconds
    num_requests: int = 1  # of a sample, to a peer
    cycle: int = 1  # in so many samples that follow each other there is some of all
    share: float = 1.0  # of the time, for a cell of one client

    def weight(self, clients: int) -> float:
        return self.share * (MORE_CLIENTS if clients > 1 else 1.0)


def each(work: Work) -> Callable[[int, Iterator[int]], list[Work]]:
    """The same work on another picture each time."""
    return lambda count, pictures: [replace(work, picture=picture) for picture in islice(pictures, count)]


def text_works(count: int, _: Iterator[int]) -> list[Work]:
    return [Work("embed-text", texts=(TEXTS[place % len(TEXTS)],)) for place in range(count)]


def mix(count: int, pictures: Iterator[int], seed: int = 0) -> list[Work]:
    """40 % captions, 30 % VQA, 20 % match, 10 % embeddings, exactly so in every ten; every third image was seen."""
    generator = random.Random(seed)
    works: list[Work] = []
    while len(works) < count:
        for task in generator.sample(MIX, len(MIX)):
            seen = len(works) % SEEN_EVERY == SEEN_EVERY - 1
            picture = generator.choice(works).picture if seen else next(pictures)
            works.append(Work(task, picture, texts_of(task)))
    return works[:count]


def texts_of(task: str) -> tuple[str, ...]:
    return {"vqa": QUESTIONS, "match": TEXTS}.get(task, ())


WORKLOADS = (
    Workload(GREEDY, "captions/s", each(Work("caption")), share=1.5),
    Workload(BEAMS, "captions/s", each(Work("caption", num_beams=3)), share=1.5),
    Workload("vqa, 5 questions", "answers/s", each(Work("vqa", texts=QUESTIONS)), num_requests=5),
    Workload("match, 1 x 16", "pairs/s", each(Work("match", texts=TEXTS)), num_requests=16),
    Workload("embed images", "images/s", each(Work("embed-image")), share=0.5),
    Workload("embed texts", "texts/s", text_works, light=True, share=0.3),
    Workload("mix", "requests/s", mix, num_requests=7, cycle=len(MIX), share=2.0),
)
