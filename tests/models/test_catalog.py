"""The catalog: what is packaged, and an operator's own entries."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from models.base import Task
from models.catalog import CatalogError, read_catalog

OWN = """
[profiles]
mine = ["mine", "blip-base"]
[models.mine]
family = "blip"
match = { checkpoint = "weights" }
"""
TASKS_OF = {
    "clipseg": {Task.SEGMENT},
    "owlvit": {Task.DETECT},
    "owlv2": {Task.DETECT},
    "vilt": {Task.VQA, Task.MATCH},
    "vilt-nlvr2": {Task.VQA},
}
BLIP2 = '[models.mine]\nfamily = "blip2"\nvqa = { checkpoint = "x" }\n'


def test_the_packaged_profiles_are_whole_and_pinned_where_they_can_be() -> None:
    catalog = read_catalog()
    assert {"demo", "blip-base", "blip-large", "blip2-opt", "blip2-t5", "blip-and-blip2"} <= set(catalog.profiles)
    unpinned = set()  # as no revision is known
    for name in catalog.profiles:
        for served, model in catalog.profile(name).items():
            talks = {Task.CAPTION} if model.family.startswith("blip") else set()
            answers = set() if not talks or served.endswith("-coco") else {Task.VQA}
            assert set(model.checkpoints) == TASKS_OF.get(model.family, {Task.MATCH} | talks | answers)
            for entry in model.checkpoints.values():
                if not Path(entry.checkpoint).is_dir() and not re.fullmatch(r"[0-9a-f]{40}", entry.revision or ""):
                    unpinned.add(entry.checkpoint)
    assert unpinned == {
        "Salesforce/blip2-opt-2.7b-coco",
        "Salesforce/blip2-flan-t5-xl-coco",
        "CIDAS/clipseg-rd64-refined",
        "clip-italian/clip-italian",
        "dandelin/vilt-b32-finetuned-coco",
        "dandelin/vilt-b32-finetuned-nlvr2",
        "dandelin/vilt-b32-finetuned-vqa",
        "google/owlvit-base-patch32",
        "facebook/metaclip-2-worldwide-huge-quickgelu",
    }
    assert {model for models in catalog.profiles.values() for model in models} == set(catalog.models)


def test_a_checkpoint_has_one_revision() -> None:
    """Else it would be fetched and loaded twice."""
    entries = {entry for model in read_catalog().models.values() for entry in model.checkpoints.values()}
    assert len(entries) == len({entry.checkpoint for entry in entries})


def test_an_operators_entries_join_the_packaged_ones(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "own.toml").write_text(OWN)
    models = read_catalog(tmp_path / "own.toml").profile("mine")
    assert list(models) == ["mine", "blip-base"]
    assert models["mine"].checkpoints == {Task.MATCH: models["mine"].match}
    assert models["mine"].checkpoints[Task.MATCH].checkpoint == str(tmp_path / "weights")


def test_options_of_a_language_model(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        '[profiles]\nmine = ["mine"]\n[models.mine]\nfamily = "blip2"\ntemplate = "{} Short answer:"\n'
        'vqa = { checkpoint = "a/x", quantize = "int8", max_prompt_tokens = 32 }\ncaption = { checkpoint = "a/x" }\n'
    )
    model = read_catalog(tmp_path / "own.toml").profile("mine")["mine"]
    vqa, caption = model.checkpoints[Task.VQA], model.checkpoints[Task.CAPTION]
    assert model.template == "{} Short answer:"
    assert (vqa.quantize, vqa.max_prompt_tokens) == ("int8", 32)
    assert (caption.quantize, caption.max_prompt_tokens) == (None, None)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[models.mine", "cannot read"),
        ('[models.mine]\nfamily = "flamingo"', r"wrong at models\.mine\.family"),
        ('[models.mine]\nfamily = "blip"\ncaptions = { checkpoint = "x" }', r"wrong at models\.mine\.captions"),
        ('[profiles]\nmine = ["nobody"]', "unknown models: nobody"),
        ("", "unknown profile 'mine'; there are: align, all-small, blip-and-blip2"),
        ("[profiles]\nmine = []", r"wrong at profiles\.mine"),
        ('[models.mine]\nfamily = "blip"', "needs a checkpoint for caption, vqa, match, segment or detect"),
        (
            '[models.mine]\nfamily = "blip"\nvqa = { checkpoint = "x" }\nsanity = { image = "x", caption = "y" }',
            "sanity needs a checkpoint for caption",
        ),
        (BLIP2 + 'template = "Q: {} A: {}"', r"template 'Q: {} A: {}' must hold exactly one {}"),
        (BLIP2 + 'template = "Q: "', "must hold exactly one"),
        (BLIP2.replace("vqa", "match") + 'template = "{}?"', "template needs a checkpoint for vqa"),
        (
            '[models.mine]\nfamily = "blip2"\nvqa = { checkpoint = "x", quantize = "int4" }',
            r"models\.mine\.vqa\.quantize",
        ),
        (  # the authors' temp, by which they divide
            '[models.mine]\nfamily = "blip"\nmatch = { checkpoint = "x", temperature = 0.07 }',
            r"models\.mine\.match\.temperature",
        ),
        (
            '[models.mine]\nfamily = "blip2"\nvqa = { checkpoint = "x", max_prompt_tokens = 0 }',
            r"models\.mine\.vqa\.max_prompt_tokens",
        ),
    ],
)
def test_a_wrong_catalog_is_one_clear_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(CatalogError, match=complaint) as caught:
        read_catalog(tmp_path / "own.toml").profile("mine")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("checkpoint", ["my-fine-tune", "./weights/mine", "/no/such/folder", "a/b/c", "../x"])
def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(tmp_path: Path, checkpoint: str) -> None:
    own = tmp_path / "own.toml"
    own.write_text(f'[profiles]\nmine = ["mine"]\n[models.mine]\nfamily = "blip"\ncaption.checkpoint = "{checkpoint}"')
    with pytest.raises(CatalogError, match=rf"models\.mine\.caption: there is no folder {checkpoint} "):
        read_catalog(own).profile("mine")
    own.write_text(own.read_text().replace(checkpoint, "owner/name.v1"))
    assert read_catalog(own).profile("mine")["mine"].caption is not None
    own.write_text(own.read_text() + '\n[models.other]\nfamily = "blip"\ncaption.checkpoint = "nothing"')
    read_catalog(own).profile("mine")  # which does not name it


def test_a_missing_catalog_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="cannot read the catalog"):
        read_catalog(tmp_path / "none.toml")
