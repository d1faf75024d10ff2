"""Tiny checkpoints of the families that find things in a picture, or answer with what they know; and the library's own
answers, one picture and one text at a time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    BertTokenizer,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessorPil,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessorPil,
    ViltConfig,
    ViltForImageAndTextRetrieval,
    ViltForImagesAndTextClassification,
    ViltForQuestionAnswering,
    ViltImageProcessorPil,
    ViTImageProcessorPil,
)

from tests.library.checkpoints import LAYERS, SQUARE, VISION, _clip_tokenizer, _save

Numbers = NDArray[np.float64]
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
ANSWERS = ("yes", "no", "red", "2", "a dog")
WORDS = ("red", "dog", "x", "a", "q", "b", "z", "?", "is", "it")


def write_clipseg(folder: Path) -> None:
    """As CIDAS/clipseg-rd64-refined: a last layer that is not read, pictures larger than its CLIP's."""
    tokenizer = _clip_tokenizer()
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": 2}
    text = {**LAYERS, "vocab_size": len(tokenizer), "max_position_embeddings": 77, **ids}
    config = CLIPSegConfig(
        text_config=text,
        vision_config={**VISION, "num_hidden_layers": 4, "image_size": 16},
        projection_dim=16,
        extract_layers=[0, 1, 2],
        reduce_dim=16,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=32,
        use_complex_transposed_convolution=True,
    )
    _write(folder, CLIPSegForImageSegmentation(config), tokenizer)
    ViTImageProcessorPil(size=SQUARE, resample=2, **IMAGENET).save_pretrained(folder)


def write_owlvit(folder: Path) -> None:
    """As google/owlvit-base-patch32: texts of 16 tokens, filled with "!", whose id is 0."""
    tokenizer = _owl_tokenizer()
    config = OwlViTConfig(text_config=_owl_text(len(tokenizer)), vision_config=VISION, projection_dim=32)
    _write(folder, OwlViTForObjectDetection(config), tokenizer)
    OwlViTImageProcessorPil(size=SQUARE, do_center_crop=False).save_pretrained(folder)


def write_owlv2(folder: Path) -> None:
    """As google/owlv2-base-patch16-ensemble."""
    tokenizer = _owl_tokenizer()
    config = Owlv2Config(text_config=_owl_text(len(tokenizer)), vision_config=VISION, projection_dim=32)
    _write(folder, Owlv2ForObjectDetection(config), tokenizer)
    Owlv2ImageProcessorPil(size=SQUARE).save_pretrained(folder)


def write_vilt(folder: Path, task: str = "vqa") -> None:
    """As dandelin/vilt-b32-finetuned-vqa, -coco, -nlvr2, which have BERT's tokenizer."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##s", *WORDS]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)}, model_max_length=40)
    of_task: dict[str, tuple[Any, dict[str, Any]]] = {
        "vqa": (ViltForQuestionAnswering, _labelled(ANSWERS)),
        "match": (ViltForImageAndTextRetrieval, {}),
        "nlvr2": (
            ViltForImagesAndTextClassification,
            {"num_images": 2, "modality_type_vocab_size": 3, **_labelled(("False", "True"))},
        ),
    }
    model, stated = of_task[task]
    sizes = {"vocab_size": len(words), "image_size": 16, "patch_size": 8, "max_position_embeddings": 40, **LAYERS}
    _write(folder, model(ViltConfig(**sizes, **stated)), tokenizer)
    ViltImageProcessorPil(size={"shortest_edge": 24}, size_divisor=8).save_pretrained(folder)


def _labelled(labels: Sequence[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(labels)), "label2id": {label: place for place, label in enumerate(labels)}}


def _owl_tokenizer() -> Any:
    tokenizer = _clip_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "!"})
    tokenizer.model_max_length = 16
    return tokenizer


def _owl_text(num_tokens: int) -> dict[str, Any]:
    ids = {"pad_token_id": 0, "bos_token_id": num_tokens - 2, "eos_token_id": num_tokens - 1}
    return {**LAYERS, "vocab_size": num_tokens, "max_position_embeddings": 16, **ids}


def _write(folder: Path, model: Any, tokenizer: Any) -> None:
    _save(folder, model)
    tokenizer.save_pretrained(folder)


class Regions:
    """The library's answers."""

    def __init__(self, folder: Path, model: Any) -> None:
        self.model = model.from_pretrained(folder, local_files_only=True).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")

    def pixels(self, picture: bytes) -> Any:
        with Image.open(io.BytesIO(picture)) as image:
            return self.processor(image.convert("RGB"), return_tensors="pt")

    @torch.inference_mode()
    def mask(self, picture: bytes, text: str) -> Numbers:
        """Of probabilities, at the model's size."""
        tokens = self.tokenizer([text], return_tensors="pt")
        logits = self.model(**self.pixels(picture), **tokens).logits
        return np.asarray(logits.reshape(logits.shape[-2:]).sigmoid(), np.float64)

    @torch.inference_mode()
    def boxes(self, picture: bytes, texts: Sequence[str], threshold: float, size: tuple[int, int]) -> dict[str, Any]:
        """Scores, labels and boxes in the picture's pixels; the texts filled to the length that it was trained with."""
        tokens = self.tokenizer(list(texts), padding="max_length", max_length=16, return_tensors="pt")
        outputs = self.model(**self.pixels(picture), **tokens)
        sizes = torch.tensor([size[::-1]])
        [found] = self.processor.post_process_object_detection(outputs, threshold=threshold, target_sizes=sizes)
        return {name: np.asarray(value, np.float64) for name, value in found.items()}

    @torch.inference_mode()
    def guided(self, picture: bytes, example: bytes, size: tuple[int, int]) -> dict[str, Any]:
        """As `boxes`; the library's scores are relative to the best one, which is given as `best`."""
        query = self.pixels(example)["pixel_values"]
        outputs = self.model.image_guided_detection(**self.pixels(picture), query_pixel_values=query)
        sizes = torch.tensor([size[::-1]])
        best = float(outputs.logits.max().sigmoid())
        [found] = self.processor.post_process_image_guided_detection(outputs, threshold=0.0, target_sizes=sizes)
        return {"best": best, "scores": np.asarray(found["scores"]), "boxes": np.asarray(found["boxes"])}

    @torch.inference_mode()
    def logits(self, pictures: Sequence[bytes], text: str) -> Numbers:
        """ViLT's, of one question or text; about two pictures each is padded to the other's size."""
        tokens = self.tokenizer([text], return_tensors="pt")
        images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
        made = self.processor(images, return_tensors="pt")
        if len(images) > 1:
            made = {name: value[None] for name, value in made.items()}
        return np.asarray(self.model(**made, **tokens).logits[0], np.float64)
