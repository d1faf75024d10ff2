"""The words of the things demo, and its texts as ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from training.captions import RELATIONS
from training.data import Texts, texts
from training.things.captions import Parser, Phrase
from training.things.names import COLORS, NUMBERS, Noun, clean_names
from training.things.pictures import Look
from training.things.scenes import POSITIONS, SIZES
from training.vocabulary import CLS, SEP, Vocabulary, vocabulary

_GRAMMAR = """
    are can color colour do does how image in is look many me of on part picture please see some tell there thing things
    what where which
"""


@dataclass(frozen=True)
class Words:
    """What can be said when these are the things."""

    nouns: tuple[Noun, ...]

    @cached_property
    def vocabulary(self) -> Vocabulary:
        names = [word for noun in self.nouns for word in (noun.name, noun.many)]
        return vocabulary(" ".join([_GRAMMAR, *names, *COLORS, *NUMBERS, *RELATIONS, *POSITIONS, *SIZES]))

    @cached_property
    def pooled(self) -> Vocabulary:
        """With [SEP] last: the library's OWL-ViT reads a text where its greatest id is."""
        words = self.vocabulary.words
        return Vocabulary((*words[:SEP], *words[SEP + 1 :], words[SEP]))

    @cached_property
    def parser(self) -> Parser:
        return Parser(self.nouns)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each thing, by its name."""
        return {noun.name: number for number, noun in enumerate(self.nouns)}

    @property
    def short(self) -> list[str]:
        """The things one by one: a dog, a slice of pizza."""
        return [str(Phrase(noun)) for noun in self.nouns]

    def pooled_texts(self, lines: Sequence[str]) -> Texts:
        return texts(lines, CLS, self.pooled)

    def texts(self, lines: Sequence[str], first: int = CLS) -> Texts:
        return texts(lines, first, self.vocabulary)


def words_of(every: Sequence[Look]) -> Words:
    """The clean things among these."""
    names = set(clean_names())
    return Words(tuple({look.noun.name: look.noun for look in every if look.noun.name in names}.values()))
