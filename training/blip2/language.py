"""The language model of the demo's BLIP-2: an OPT, trained on texts in which the description of a scene precedes
captions, questions and answers, and dialogues. Later the projected queries take the description's place.

A description is as long as there are queries: six words for each shape from left to right, as "small red circle top
left 1" (1: the topmost), and padding, which is read like any other token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from random import Random
from typing import cast

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from torch.nn import functional as F

from models.families.blip2.opt import OPT, Layer, OPTConfig
from training.blip2.texts import Text, random_text
from training.scenes import Scene

NUM_QUERIES = 18
PAD, BOS = "<pad>", "</s>"
IMAGE = "<image>"
SPECIAL = ("<s>", PAD, BOS, "<unk>")  # as OPT numbers them
VOCABULARY = 800
WIDTH = 128


def description(scene: Scene) -> list[str]:
    """The words of a scene, each with a leading space."""
    by_height = sorted(scene.shapes, key=lambda shape: shape.box.center[1])
    words = []
    for shape in scene.shapes:
        words += [shape.size, shape.color, shape.kind, *shape.position.split(), str(by_height.index(shape) + 1)]
    return [f" {word}" for word in words]


class Speller:
    """The byte-level tokenizer of the language model."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def learn(cls, texts: Iterable[str]) -> Speller:
        tokenizer = Tokenizer(BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    @classmethod
    def read(cls, file: Path) -> Speller:
        return cls(Tokenizer.from_file(str(file)))

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def id(self, token: str) -> int:
        number = self.tokenizer.token_to_id(token)
        assert number is not None, token
        return number

    @cached_property
    def newline(self) -> int:
        (number,) = self.tokenizer.encode("\n").ids
        return number

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).ids

    def described(self, scene: Scene) -> list[int]:
        """`(queries,)` ids of a scene. Raises ValueError if a word is not one token."""
        ids = [number for (number,) in map(self.encode, description(scene))]
        return ids + [self.id(PAD)] * (NUM_QUERIES - len(ids))

    def lines(self, texts: Sequence[Text]) -> tuple[Tensor, Tensor]:
        """Ids `(lines, tokens)`, BOS first, padded on the right; and which of them are learned."""
        rows, marks = [], []
        for text in texts:
            ids, learned = [self.id(BOS)], [False]
            for part, is_learned in text:
                own = self.encode(part)
                ids += own
                learned += [is_learned] * len(own)
            rows.append(ids)
            marks.append(learned)
        width = max(map(len, rows))
        padded = [row + [self.id(PAD)] * (width - len(row)) for row in rows]
        return torch.tensor(padded), torch.tensor([mark + [False] * (width - len(mark)) for mark in marks])

    def save(self, folder: Path) -> None:
        """tokenizer.json, vocab.json, merges.txt and tokenizer_config.json, with `<image>` as last entry."""
        whole = Tokenizer.from_str(self.tokenizer.to_str())
        whole.add_special_tokens([IMAGE])
        whole.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, self.id(BOS))]
        )
        whole.save(str(folder / "tokenizer.json"))
        self.tokenizer.model.save(str(folder))
        settings = {
            "add_bos_token": True,
            "add_prefix_space": False,
            "bos_token": BOS,
            "eos_token": BOS,
            "errors": "replace",
            "model_max_length": 1000000000000000019884624838656,
            "pad_token": PAD,
            "tokenizer_class": "GPT2Tokenizer",
            "unk_token": BOS,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def learn_spelling(scenes: Sequence[Scene]) -> Speller:
    rng = Random("spelling")
    texts = []
    for _ in range(4000):
        scene = rng.choice(scenes)
        texts.append("".join(description(scene)))
        texts.append("".join(part for part, _ in random_text(rng, scene, ())))
    return Speller.learn(texts)


def new_model(speller: Speller) -> OPT:
    """With embeddings for `<image>` and for the vocabulary's padding.

    One head of each of the first two layers starts with equal queries and keys, so that a token attends to equal
    ones: the "red" of a question to that of the description. Without this, yes-or-no answers stay guesses for thousands
    of steps."""
    config = OPTConfig(
        vocabulary=-(-(len(speller) + 1) // 64) * 64,
        num_positions=512,
        width=WIDTH,
        num_layers=4,
        num_heads=4,
        mlp_width=4 * WIDTH,
    )
    model = OPT(config)
    nn.init.normal_(model.tokens.weight, std=0.02)
    nn.init.normal_(model.positions.weight, std=0.006)
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear):
            for matrix in part.weight.data.chunk(3 if name.endswith("query_key_value") else 1):
                nn.init.xavier_uniform_(matrix)
            nn.init.zeros_(part.bias)
    for layer in cast("list[Layer]", list(model.layers[:2])):
        size = WIDTH // config.num_heads
        query, key, _ = layer.query_key_value.weight.data.chunk(3)
        key[:size] = query[:size]
    return model


def text_loss(model: OPT, before: Tensor, ids: Tensor, learned: Tensor) -> Tensor:
    """Cross-entropy of every learned token: (tokens,). `before`: embeddings `(lines, queries, width)`."""
    asked = learned[:, 1:]
    logits = model.logits(text_states(model, before, ids[:, :-1])[asked])
    return F.cross_entropy(logits, ids[:, 1:][asked], reduction="none")


def text_states(model: OPT, before: Tensor, ids: Tensor) -> Tensor:
    """Hidden states of `ids` `(lines, tokens)`: `(lines, tokens, width)`."""
    x = torch.cat([before, model.tokens(ids)], dim=1)
    length = x.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    states, _ = model(x, torch.arange(length)[None], earlier)
    return states[:, before.shape[1] :]


@torch.no_grad()
def write(model: OPT, speller: Speller, before: Tensor, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    """Continue each prompt greedily up to the newline; lines of one length share a pass."""
    encoded = [[speller.id(BOS), *speller.encode(prompt)] for prompt in prompts]
    written = [""] * len(prompts)
    for length in sorted({len(ids) for ids in encoded}):
        numbers = [number for number, ids in enumerate(encoded) if len(ids) == length]
        ids = torch.tensor([encoded[number] for number in numbers])
        for _ in range(max_new_tokens):
            following = model.logits(text_states(model, before[numbers], ids)[:, -1]).argmax(-1)
            ids = torch.cat([ids, following[:, None]], dim=1)
            if (ids[:, length:] == speller.newline).any(1).all():
                break
        for number, line in zip(numbers, ids[:, length:].tolist(), strict=True):
            end = line.index(speller.newline) if speller.newline in line else len(line)
            written[number] = speller.tokenizer.decode(line[:end]).strip()
    return written
