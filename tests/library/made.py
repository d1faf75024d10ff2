"""Weights that are made by hand: whatever the text, they find what is red. What they answer is known of any picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPSegForImageSegmentation, Owlv2ForObjectDetection, OwlViTForObjectDetection

from tests.library.regions import write_clipseg, write_owlv2, write_owlvit

GRID = 4  # patches of a side
LEAST = 2.0  # of `redness`, of what is red: it has 4 or more, and what is white, black or blue less than 0.5


def write_red_clipseg(folder: Path) -> None:
    """The mask is one over each patch that is red, and zero over the others."""
    write_clipseg(folder)
    _simplify(folder / "config.json", use_complex_transposed_convolution=False)
    config = CLIPSegForImageSegmentation.config_class.from_pretrained(folder)
    model = CLIPSegForImageSegmentation(config)
    _blank(model)
    _see_colours(model.clip.vision_model)
    decoder = model.decoder
    decoder.film_mul.bias.data.fill_(1)
    first = decoder.reduces[0]  # the others are blank
    first.weight.data[0, :3] = torch.tensor([1, -0.5, -0.5])
    first.weight.data[1] = -first.weight.data[0]
    first.bias.data[:4] = torch.tensor([-LEAST, LEAST, 1, -1])
    up = decoder.transposed_convolution
    up.weight.data[0], up.weight.data[1] = 10, -10
    model.save_pretrained(folder)


def write_red_owlvit(folder: Path) -> None:
    write_owlvit(folder)
    _make_red_owl(folder, OwlViTForObjectDetection, "owlvit")


def write_red_owlv2(folder: Path) -> None:
    write_owlv2(folder)
    _make_red_owl(folder, Owlv2ForObjectDetection, "owlv2")


RED: dict[str, Callable[[Path], None]] = {
    "clipseg": write_red_clipseg,
    "owlvit": write_red_owlvit,
    "owlv2": write_red_owlv2,
}


def _make_red_owl(folder: Path, architecture: Any, encoders: str) -> None:
    """A box at each red patch: as large as the patch, its middle at the patch's lower right corner, which is where the
    library has it before anything is learned."""
    model = architecture.from_pretrained(folder)
    _blank(model)
    both = getattr(model, encoders)
    _see_colours(both.vision_model)
    signs = torch.tensor([1.0, -1.0]).repeat(both.vision_model.config.hidden_size // 2)
    both.vision_model.embeddings.class_embedding.data = signs  # by which each patch is multiplied
    both.text_model.final_layer_norm.weight.data.zero_()
    both.text_model.final_layer_norm.bias.data[0] = 1
    both.text_projection.weight.data[0, 0] = 1  # any text: (1, 0, ...)
    head = model.class_head
    head.dense0.weight.data[0, :6] = torch.tensor([0.5, 0.25, -0.25, 0.5, 0.25, -0.25])  # with the signs: the redness
    head.dense0.bias.data[:2] = torch.tensor([-LEAST, 1])
    head.logit_scale.bias.data.fill_(19)
    model.save_pretrained(folder)


def _blank(model: nn.Module) -> None:
    """Every matrix zero, so that each layer passes on what it is given; normalisations stay."""
    for part in model.modules():
        for name, parameter in part.named_parameters(recurse=False):
            parameter.data.fill_(1.0 if isinstance(part, nn.LayerNorm) and name == "weight" else 0.0)


def _see_colours(vision: Any) -> None:
    """Each patch is its mean colour, and the opposite of it, so that a normalisation changes the length alone."""
    kernel = vision.embeddings.patch_embedding.weight.data
    for channel in range(3):
        kernel[channel, channel] = 1 / kernel[0, 0].numel()
        kernel[3 + channel, channel] = -1 / kernel[0, 0].numel()


def _simplify(file: Path, **entries: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))
