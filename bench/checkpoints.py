"""Full-size checkpoints with seeded random weights, in Hugging Face format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    BlipImageProcessorPil,
)

VOCABULARY = 30_522  # bert-base-uncased; the models have two rows more, [DEC] and [ENC]
NAMES = {
    "caption": BlipForConditionalGeneration,
    "vqa": BlipForQuestionAnswering,
    "match": BlipForImageTextRetrieval,
}
CATALOG = """[profiles]
random-base = ["random-base"]
[models.random-base]
family = "blip"
caption = { checkpoint = "caption" }
vqa = { checkpoint = "vqa" }
match = { checkpoint = "match" }
"""


VISION: Mapping[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 384,
    "patch_size": 16,
    "layer_norm_eps": 1e-6,
    "initializer_range": 0.02,
}
TEXT: Mapping[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}


def write_blip_base(
    folder: Path, vision: Mapping[str, Any] = VISION, text: Mapping[str, Any] = TEXT, device: str = "cpu"
) -> Path:
    """The three checkpoints of BLIP-base, 384 pixels, in `folder` (3.3 GB). Returns the catalog that names them.
    `device`: where the weights are drawn."""
    side = vision["image_size"]
    for seed, (name, model_class) in enumerate(NAMES.items()):
        torch.manual_seed(seed)
        with torch.device(device):
            model = model_class(_config(vision, text))
        model.save_pretrained(folder / name)
        _tokenizer(folder).save_pretrained(folder / name)
        BlipImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder / name)
    catalog = folder / "catalog.toml"
    catalog.write_text(CATALOG)
    return catalog


def _config(vision: Mapping[str, Any], text: Mapping[str, Any]) -> BlipConfig:
    own = {
        "vocab_size": VOCABULARY + 2,
        "encoder_hidden_size": vision["hidden_size"],
        "bos_token_id": VOCABULARY,
        "sep_token_id": 102,
        "is_decoder": True,
    }
    return BlipConfig(vision_config=dict(vision), text_config=own | dict(text))


def _tokenizer(folder: Path) -> BertTokenizerFast:
    """A WordPiece vocabulary in BERT's layout: any English text has tokens, most of them letters."""
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    letters = [prefix + letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789?.,'-" for prefix in ("", "##")]
    words = [*letters, "picture", "of", "what", "is", "the", "in", "this", "it", "color"]
    names = [special.get(index, f"[unused{index}]") for index in range(VOCABULARY)]
    names[1000 : 1000 + len(words)] = words
    path = folder / "vocab.txt"
    path.write_text("\n".join(names) + "\n")
    return BertTokenizerFast(vocab=str(path))
