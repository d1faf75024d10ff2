"""WordPiece vocabularies of the demo models and their tokenizer files, in the layout of the Salesforce checkpoints:
[DEC] and [ENC] are the two rows after the vocabulary, known to the model and not to the tokenizer."""

from __future__ import annotations

import json
import re
import string
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers import BertTokenizer

from training.captions import RELATIONS
from training.scenes import COLORS, KINDS, POSITIONS, SIZES

PAD, UNK, CLS, SEP, MASK = range(5)
MAX_TOKENS = 35  # of a training text, as the authors
PROMPT = "a picture of "

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_GRAMMAR = """
    about an and answer any are at be below big bottom can circle circles color colour contain corner count does
    each every exactly for from has have here how image in is it kind large least left less look many me more no
    none not number object objects of on one or other picture place please present question rectangle rectangles
    right same shape shapes show shows size small tell than that the there thing things this three to top triangle
    triangles two what where which with yes you zero
"""
_COMMON = """
    across after against all almost along also always among another around as away back background because become
    before behind being best better between both box boy bright but by call came car cat center centre city clear
    close come could dark day did different do dog done down draw drawing during edge else end even ever example eye
    face far few find first five follow food form found four front full gave get girl give go good got great grey
    ground group had half hand hard head hello help her high him his home hot house i if into its just keep kid know
    last later life light like line little live long low made make man may mean men middle might mine most move much
    must my name near need never new next night nothing now off often old once only open orange our out over own
    paint part people person photo photograph photography pink plain play point purple put quite rather read really
    road room round run said say scene school second see seen set seven shall she side simple since sit six sky so
    some someone something sort square stand start still such sure table take talk ten their them then these they
    think those through time today together too toward tree true try turn under until up upper us use very view wait
    walk want was water way we well went were when while white who whole whose why will woman women wood word work
    world would write year young your
"""
_ENDINGS = """
    s es ed er est ing ly y al ion tion ment ness ful less able an en ar or us um th st nd rd ll re ve nt ck sh ch
"""


@dataclass(frozen=True)
class Vocabulary:
    """`words`: every entry, by id."""

    words: tuple[str, ...]

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    @property
    def dec_id(self) -> int:
        return len(self.words)

    @property
    def enc_id(self) -> int:
        return len(self.words) + 1

    @property
    def sep_id(self) -> int:
        return self.ids["[SEP]"]

    def encode(self, text: str, first: int) -> list[int]:
        """Ids of a training text, `first` in the place of [CLS] and [SEP] last: as the real tokenizer, but much faster.

        Raises KeyError for a word that is not one entry."""
        return [first, *(self.ids[word] for word in re.findall(r"[a-z]+|[^\sa-z]", text)), self.sep_id]

    def spell(self, ids: list[int]) -> str:
        return " ".join(self.words[number] for number in ids if number < len(self.words)).replace(" ,", ",")


def vocabulary(texts: str) -> Vocabulary:
    """One with an entry for each word of `texts` and for common words. Any ASCII text can be spelt: each character has
    its own entry and its own `##` entry."""
    characters = string.punctuation + string.digits + string.ascii_lowercase
    entries = [*_SPECIAL, *characters, *(f"##{character}" for character in characters)]
    entries += sorted(set((_GRAMMAR + texts).split())) + _COMMON.split()
    entries += [f"##{ending}" for ending in _ENDINGS.split()]
    return Vocabulary(tuple(dict.fromkeys(entries)))


SHAPES = vocabulary(" ".join([*COLORS, *KINDS, *SIZES, *POSITIONS, *RELATIONS]))


def save(known: Vocabulary, folder: Path, processor: str | None = "BlipProcessor", max_tokens: int = 320) -> None:
    """vocab.txt, tokenizer.json, tokenizer_config.json and special_tokens_map.json."""
    words = folder / "vocab.txt"
    words.write_text("".join(f"{word}\n" for word in known.words))
    BertTokenizer(vocab=str(words), do_lower_case=True).save_pretrained(folder)
    marks = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), _SPECIAL, strict=True))
    (folder / "special_tokens_map.json").write_text(json.dumps(marks, indent=2) + "\n")
    settings = {
        **marks,
        "do_basic_tokenize": True,
        "do_lower_case": True,
        "model_max_length": max_tokens,
        "never_split": None,
        "processor_class": processor,
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "tokenizer_class": "BertTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
