"""Tiny checkpoints with seeded random weights, in the files that the hub has. Real weights have not run here.

The weights are wide: with the usual deviation of 0.02, what padding or a crop does wrong would vanish in rounding."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    AlignConfig,
    AlignModel,
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessorPil,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    EfficientNetImageProcessorPil,
    GemmaTokenizer,
    MetaClip2Config,
    MetaClip2Model,
    PreTrainedModel,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipTokenizer,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTImageProcessorPil,
    XLMRobertaTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

DEVIATION = 0.25
SIDE = 32  # pixels
SQUARE = {"height": SIDE, "width": SIDE}
LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**LAYERS, "image_size": SIDE, "patch_size": 8}
SIGNS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'"


def write_clip(folder: Path, **text: Any) -> None:
    """As openai/clip-vit-base-patch32. `text`: entries of its text configuration."""
    tokenizer = _clip_tokenizer()
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    stated = {**LAYERS, "vocab_size": len(tokenizer), "max_position_embeddings": 77, **ids, **text}
    _save(folder, CLIPModel(CLIPConfig(vision_config=VISION, text_config=stated, projection_dim=16)))
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE).save_pretrained(folder)


def write_full_clip(folder: Path) -> None:
    """openai/clip-vit-base-patch32 in its own size (600 MB), with weights as its training begins."""
    torch.manual_seed(0)
    tokenizer = _clip_tokenizer(num_tokens=49_408)
    CLIPModel(CLIPConfig()).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)


def write_siglip(folder: Path) -> None:
    """As google/siglip-base-patch16-224."""
    folder.mkdir(parents=True)
    vocabulary = folder / "spiece.model"
    vocabulary.write_bytes(_sentence_pieces())
    tokenizer = SiglipTokenizer(vocab_file=str(vocabulary), model_input_names=["input_ids"])
    _save_siglip(folder, len(tokenizer))
    tokenizer.save_pretrained(folder)


def write_siglip2(folder: Path) -> None:
    """As google/siglip2-base-patch16-224: the same model with Gemma's tokenizer, which does not lower letters."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    signs = [*SIGNS, *SIGNS.upper()[:26], "▁"]
    merges = [("r", "e"), ("re", "d"), ("d", "o"), ("do", "g"), ("▁", "x")]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *signs, *("".join(pair) for pair in merges)]
    ids = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = GemmaTokenizer(vocab=ids, merges=merges, padding_side="right", model_input_names=["input_ids"])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    _save_siglip(folder, len(tokenizer))
    tokenizer.save_pretrained(folder)


def write_align(folder: Path) -> None:
    """As kakaobrain/align-base, whose processor has the values of its conversion."""
    tokenizer = _word_pieces(model_max_length=64)
    vision = {"image_size": 33, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 64}
    text = {**LAYERS, "vocab_size": len(tokenizer)}
    config = AlignConfig(vision_config=vision, text_config=text, projection_dim=80, temperature_init_value=0.07)
    _save(folder, AlignModel(config))
    tokenizer.save_pretrained(folder)
    EfficientNetImageProcessorPil(
        size={"height": 40, "width": 40},
        crop_size={"height": 33, "width": 33},
        do_center_crop=True,
        rescale_factor=1 / 127.5,
        rescale_offset=True,
        do_normalize=False,
        include_top=False,
        resample=2,
    ).save_pretrained(folder)


def write_lit(folder: Path, **vision: Any) -> None:
    """A ViT and a BERT, as the library joins them. `vision`: entries of its vision configuration."""
    tokenizer = _word_pieces(model_max_length=40)
    config = VisionTextDualEncoderConfig(
        vision_config={"model_type": "vit", **VISION, **vision},
        text_config={"model_type": "bert", **LAYERS, "vocab_size": len(tokenizer), "max_position_embeddings": 40},
        projection_dim=16,
    )
    _save(folder, VisionTextDualEncoderModel(config))
    tokenizer.save_pretrained(folder)
    ViTImageProcessorPil(size=SQUARE).save_pretrained(folder)


def write_chinese_clip(folder: Path) -> None:
    """As OFA-Sys/chinese-clip-vit-base-patch16."""
    tokenizer = _word_pieces(model_max_length=512)
    text = {**LAYERS, "vocab_size": len(tokenizer), "max_position_embeddings": 512}
    _save(folder, ChineseCLIPModel(ChineseCLIPConfig(vision_config=VISION, text_config=text, projection_dim=16)))
    tokenizer.save_pretrained(folder)
    ChineseCLIPImageProcessorPil(size=SQUARE, do_center_crop=False).save_pretrained(folder)


def write_metaclip2(folder: Path) -> None:
    """As facebook/metaclip-2-worldwide-huge-quickgelu, whose tokenizer is an XLM-RoBERTa's."""
    pieces = [*("<s>", "<pad>", "</s>", "<unk>"), *SIGNS, *(f"▁{one}" for one in SIGNS), "▁", "▁red", "▁dog", "红"]
    scores = [(piece, -1.0 if len(piece) > 2 else -5.0) for piece in (*pieces, "<mask>")]  # words before letters
    tokenizer = XLMRobertaTokenizer(vocab=scores, model_max_length=77)
    text = {**LAYERS, "vocab_size": len(tokenizer), "max_position_embeddings": 77, "bos_token_id": 0, "eos_token_id": 2}
    _save(folder, MetaClip2Model(MetaClip2Config(vision_config=VISION, text_config=text, projection_dim=16)))
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE).save_pretrained(folder)


@dataclass(frozen=True, slots=True)
class Tiny:
    """A checkpoint, and how it is used."""

    family: str
    write: Callable[[Path], None]
    limit: int  # tokens of a text
    cut: bool = False  # longer ones are, else refused
    sigmoid: bool = False  # of each logit, in place of the softmax
    tokenized: Mapping[str, Any] = field(default_factory=dict)  # how the library's users call its tokenizer


TO_64 = {"padding": "max_length", "max_length": 64}
CHECKPOINTS = {
    "clip": Tiny("clip", write_clip, limit=77),
    "siglip": Tiny("siglip", write_siglip, limit=64, cut=True, sigmoid=True, tokenized={**TO_64, "truncation": True}),
    "siglip2": Tiny("siglip", write_siglip2, limit=64, cut=True, sigmoid=True, tokenized={**TO_64, "truncation": True}),
    "align": Tiny("align", write_align, limit=64, tokenized=TO_64),
    "lit": Tiny("lit", write_lit, limit=40, cut=True, tokenized={"truncation": True}),
    "chinese_clip": Tiny(
        "chinese_clip", write_chinese_clip, limit=52, cut=True, tokenized={"truncation": True, "max_length": 52}
    ),
    "metaclip2": Tiny("metaclip2", write_metaclip2, limit=77, cut=True, tokenized={"truncation": True}),
}


# --- their parts ----------------------------------------------------------------------------------------------------


def _save(folder: Path, model: PreTrainedModel) -> None:
    """What begins as noise gets a deviation of 0.25; what begins as zeros or ones moves by a tenth; scalars stay. By
    numpy: the same on every machine."""
    rng = np.random.default_rng(0)
    for weight in (*model.parameters(), *model.buffers()):
        if weight.is_floating_point() and weight.numel() > 1:
            noise = torch.from_numpy(rng.standard_normal(tuple(weight.shape), np.float32))
            constant = weight.dim() == 1 and bool((weight == weight[0]).all())
            weight.data = weight.data + 0.1 * noise if constant else DEVIATION * noise
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_var = torch.full((part.num_features,), 0.3)  # or its channels would fade from layer to layer
    model.save_pretrained(folder)


def _save_siglip(folder: Path, vocabulary: int) -> None:
    text = {**LAYERS, "vocab_size": vocabulary, "max_position_embeddings": 64, "projection_size": 32}
    model = SiglipModel(SiglipConfig(vision_config=VISION, text_config=text))
    model.logit_scale.data.fill_(2.3)
    model.logit_bias.data.fill_(-3.0)
    _save(folder, model)
    SiglipImageProcessorPil(size=SQUARE).save_pretrained(folder)


def _clip_tokenizer(num_tokens: int = 0) -> CLIPTokenizer:
    """Bytes, a few words, what nobody writes up to `num_tokens`, and the two special tokens with the largest ids, as
    CLIP's has them."""
    signs = list(bytes_to_unicode().values())
    merges = [("r", "e"), ("re", "d</w>"), ("d", "o"), ("do", "g</w>")]
    vocabulary = [*signs, *(f"{one}</w>" for one in signs), *("".join(pair) for pair in merges)]
    vocabulary += [f"<|{number}|>" for number in range(len(vocabulary), num_tokens - 2)]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    ids = {token: number for number, token in enumerate(vocabulary)}
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=77)


def _word_pieces(model_max_length: int) -> BertTokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *SIGNS, *(f"##{one}" for one in SIGNS), "red", "dog", "红", "狗"]
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)}, model_max_length=model_max_length)


def _sentence_pieces() -> bytes:
    written = io.BytesIO()
    sentences = [f"a red dog {one} {other}" for one in SIGNS for other in SIGNS]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=written,
        vocab_size=120,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return written.getvalue()
