"""Checkpoints of the families that find things: every way in which one can be wrong is one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from models.catalog import CatalogError
from tests.library.regions import write_clipseg, write_owlv2, write_vilt
from tests.models.spoiling import Spoil, changed, complaint, load, with_more_tokens, without

CUT = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "crop_size": 32}
SEGMENT, DETECT, VQA = (f'{task} = {{ checkpoint = "tiny" }}' for task in ("segment", "detect", "vqa"))
WRONG: list[tuple[str, str, Callable[[Path], None], Spoil, str]] = [
    ("clipseg", SEGMENT, write_clipseg, changed("preprocessor_config.json", **CUT), "does not make of the whole"),
    ("clipseg", SEGMENT, write_clipseg, without("model.safetensors"), "no model.safetensors or pytorch_model.bin"),
    ("clipseg", SEGMENT, write_clipseg, without("preprocessor_config.json"), "it has no preprocessor_config.json"),
    ("clipseg", SEGMENT, write_clipseg, with_more_tokens, "the tokenizer has"),
    ("clipseg", SEGMENT, write_owlv2, lambda _: None, "segment needs CLIPSegForImageSegmentation"),
    ("owlv2", DETECT, write_owlv2, changed("preprocessor_config.json", **CUT), "does not make of the whole"),
    ("owlv2", DETECT, write_owlv2, changed("config.json", vision_config__image_size=40), "the tower takes 40 pixels"),
    ("owlvit", DETECT, write_owlv2, lambda _: None, "detect needs OwlViTForObjectDetection"),
    ("vilt", VQA, write_vilt, changed("config.json", max_image_length=10), "max_image_length is 10"),
    ("vilt", VQA, lambda to: write_vilt(to, "match"), lambda _: None, "vqa needs ViltForQuestionAnswering"),
]


@pytest.mark.parametrize(("family", "entry", "write", "spoil", "reason"), WRONG)
def test_a_wrong_checkpoint_is_one_line_that_names_it(
    tmp_path: Path, family: str, entry: str, write: Callable[[Path], None], spoil: Spoil, reason: str
) -> None:
    write(tmp_path / "tiny")
    spoil(tmp_path / "tiny")
    assert reason in complaint(tmp_path, entry, "tiny", family)


@pytest.mark.parametrize(("family", "task"), [("clipseg", "detect"), ("owlvit", "segment"), ("vilt-nlvr2", "match")])
def test_another_task_is_one_clear_line(tmp_path: Path, family: str, task: str) -> None:
    with pytest.raises(CatalogError, match=f"{family} has no {task}, only"):
        load(tmp_path, f'{task} = {{ checkpoint = "a/x" }}', family=family)
