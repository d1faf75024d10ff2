"""All phases of the things demo run, go on after a break as if there had been none, and what they leave is served."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from torch.nn import functional as F

from app.decoding.pool import decoder_processes
from app.main import load_models
from models.layers.vit import ViTConfig
from tests.app.support import serving, until_ready
from tests.training.things import FORMS, made_looks
from training.asking import Client, Tally
from training.data import Texts, normalise
from training.loop import Plan
from training.network import Design, PreTraining
from training.things.captions import phrases_of
from training.things.clip import Contrast, ContrastBatches, Plans, arguments, sizes
from training.things.data import UNTOLD, Drawing, JointBatches, QuestionBatches, RegionBatches, TowerBatches
from training.things.evaluate import GOALS, cases_of, jobs_of
from training.things.names import noun
from training.things.questions import whole_question
from training.things.scenes import Mix, Sprites, sprites
from training.things.train import OtherRecipeError, Recipe, Training
from training.things.words import Words

TINY = Plan(2, peak=1e-3, floor=1e-3, num_pictures=4, warm_up=1, look_every=1)
RECIPE = Recipe(
    tower=ViTConfig(32, 8, 32, num_layers=4, num_heads=2, mlp_width=64, norm_epsilon=1e-6),
    classes=TINY,
    captions=TINY,
    joint=TINY,
    match=TINY,
    answers=TINY,
    clip=Plans(TINY, TINY, TINY),
    num_questions=2,
    num_whole=1,
    pool_size=8,
    num_watched=3,
).computed_in(torch.bfloat16)
WORDS = Words(tuple(map(noun, FORMS)))
DRAWING = Drawing(WORDS, Sprites(sprites(made_looks(), ("google",), list(FORMS))), side=32, patch=8)
MIX = Mix((0.4, 0.3, 0.3))


CATALOG = """[profiles]
things = ["demo-things", "demo-things-clip", "demo-things-clipseg", "demo-things-owl"]
[models.demo-things]
family = "blip"
caption = { checkpoint = "caption" }
vqa = { checkpoint = "vqa" }
match = { checkpoint = "match" }
[models.demo-things-clip]
family = "clip"
match = { checkpoint = "clip" }
[models.demo-things-clipseg]
family = "clipseg"
segment = { checkpoint = "clipseg" }
[models.demo-things-owl]
family = "owlvit"
detect = { checkpoint = "owl" }
"""
FIGURES = {
    "demo-things": {*GOALS["blip"], "ITM: true before one word changed", "caption: true (unseen style)"},
    "demo-things-clip": {"ITC: the right one of all things"},
    "demo-things-clipseg": {"segment: the mask overlaps by half"},
    "demo-things-owl": {"detect: the best box overlaps by half"},
}


class BrokenOffError(Exception):
    pass


def weights(work: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {file.name: torch.load(file, weights_only=True) for file in work.glob("*.pt")}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Two wait for each other most of the time where networks are tiny."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of all phases, and the checkpoints in `to`."""
    folder = tmp_path_factory.mktemp("things")
    Training(RECIPE, folder, DRAWING).run(folder / "to")
    return folder


def test_all_phases_leave_their_weights(trained: Path) -> None:
    assert set(weights(trained)) == {
        f"{phase}.pt" for phase in ("classes", "captions", "joint", "match", "answers", "contrast", "segment", "detect")
    }
    assert {file.parent.name for file in (trained / "to").rglob("model.safetensors")} == {
        "caption", "vqa", "match", "clip", "clipseg", "owl",
    }  # fmt: skip


@pytest.mark.parametrize(("at", "left"), [(3, "classes.pt"), (4, "captions.part"), (6, "joint.part")])
def test_broken_off_and_resumed_it_ends_as_it_would_have(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, left: str
) -> None:
    """`at`: a step, of two a phase."""
    with monkeypatch.context() as patch:
        steps = []
        step = torch.optim.AdamW.step

        def stopping(self: torch.optim.AdamW, *given: object) -> object:
            steps.append(1)
            if len(steps) == at:
                raise BrokenOffError
            return step(self, *given)

        patch.setattr(torch.optim.AdamW, "step", stopping)
        with pytest.raises(BrokenOffError):
            Training(RECIPE, tmp_path, DRAWING).run(tmp_path / "to")
    assert max(tmp_path.glob("*.p*t"), key=lambda file: file.stat().st_mtime_ns).name == left
    Training(RECIPE, tmp_path, DRAWING).run(tmp_path / "to")
    assert not list(tmp_path.glob("*.part"))
    for name, expected in weights(trained).items():
        found = weights(tmp_path)[name]
        assert all(torch.equal(found[key], value) for key, value in expected.items()), name


@pytest.mark.parametrize("other", [replace(RECIPE, num_questions=3), RECIPE.computed_in(torch.float32)])
def test_phases_of_another_recipe_are_no_start(trained: Path, other: Recipe) -> None:
    with pytest.raises(OtherRecipeError, match="another folder"):
        Training(other, trained, DRAWING).run(trained / "to")


async def evaluated(catalog: Path) -> dict[str, tuple[Client, Tally]]:
    """What `make eval` finds of each model, on some scenes."""
    cases, found = cases_of(made_looks(), WORDS, 6), {}
    settings = {"profile": "things", "catalog": catalog, "dtype": "fp32", "device": "cpu", "threads": 1}
    async with serving(load_models, decoder_processes, **settings) as (http, _):
        await until_ready(http)
        for model in (await http.get("/models")).json()["models"]:
            client, tally = found[model["name"]] = Client(http, model["name"], 4), Tally({})
            await asyncio.gather(*jobs_of(model, client, tally, cases))
    return found


def test_what_they_leave_is_served_and_evaluated(trained: Path) -> None:
    catalog = trained / "to" / "catalog.toml"
    catalog.write_text(CATALOG)
    found = asyncio.run(evaluated(catalog))
    assert set(found) == set(FIGURES)
    for name, (client, tally) in found.items():
        assert client.failed == 0
        assert set(tally.asked) >= FIGURES[name], name


def test_a_batch_depends_on_its_number_alone() -> None:
    batches = TowerBatches("a", DRAWING, MIX, 4)
    assert torch.equal(batches[3].pixels, batches[3].pixels)
    assert not torch.equal(batches[3].pixels, batches[4].pixels)


def test_a_patch_is_of_the_thing_on_it() -> None:
    batch = TowerBatches("a", DRAWING, Mix((0, 1, 0), equal=0), 16)[0]
    seen = 0
    for things, patches in zip(batch.things, batch.patches, strict=True):
        assert sorted(things[things > 0].tolist()) == [0.5, 0.5]
        shown = set(patches.unique().tolist()) - {0, UNTOLD}
        assert shown <= set((things.nonzero()[:, 0] + 1).tolist())
        seen += len(shown)
    assert seen > 16


def clip() -> Contrast:
    return Contrast(sizes(RECIPE.tower, WORDS), PreTraining(Design(RECIPE.tower, WORDS.vocabulary)).tower)


@torch.no_grad()
def test_the_first_cosines_are_those_of_clip() -> None:
    batch, model = ContrastBatches("a", DRAWING, MIX, 4)[0], clip()
    pictures = model.clip.get_image_features(pixel_values=normalise(batch.pixels)).pooler_output
    words = model.clip.get_text_features(**arguments(batch.lines)).pooler_output
    found = model.similarity(batch.pixels, batch.lines)[:, 0]
    torch.testing.assert_close(found, F.normalize(pictures, dim=-1) @ F.normalize(words, dim=-1).T)


@torch.no_grad()
def test_patches_of_clip_learn_the_names_of_what_is_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, model = ContrastBatches("a", DRAWING, MIX, 4)[0], clip()
    named = F.one_hot((batch.patches - 1).clamp(min=0), len(WORDS.nouns)).float()
    learned = F.pad(named, (len(batch.pixels), 0, 1, 0))  # nothing of the pictures, nothing about their captions
    monkeypatch.setattr(model, "similarity", lambda *_: learned)
    other = torch.where(batch.patches > 0, batch.patches % len(WORDS.nouns) + 1, batch.patches)
    assert model.loss(batch) < model.loss(replace(batch, patches=other)) - 1


def test_own_captions_are_true_and_short_ones_where_there_is_one() -> None:
    texts = JointBatches("a", DRAWING, MIX, 6)[0].texts
    assert texts.true.shape == (6, 6 + len(FORMS))
    assert texts.true[torch.arange(6), torch.arange(6)].all()


def test_the_second_false_text_of_a_picture_keeps_its_names() -> None:
    texts = JointBatches("a", DRAWING, Mix((1, 0, 0)), 16)[0].texts
    said, *spoilt = ([named_in(text) for text in spelt(lines)] for lines in (texts.said, *texts.spoilt))
    assert [names == said for names in spoilt] == [False, True]


def spelt(lines: Texts) -> list[str]:
    every = (WORDS.vocabulary.spell(line).split() for line in lines.ids.tolist())
    return [" ".join(word for word in words if not word.startswith("[")) for words in every]


def named_in(text: str) -> list[str]:
    caption = WORDS.parser.parse(text)
    assert caption is not None
    return [phrase.noun.name for phrase in phrases_of(caption)]


def test_the_last_questions_of_a_picture_are_about_all_of_it() -> None:
    scenes = [one.scene for one in DRAWING.draw(Random(1), MIX, 8)]
    batch = QuestionBatches("a", scenes, WORDS, num_pictures=4, num_questions=2, num_whole=1)[0]
    whole = [whole_question(Random(1), scenes[number])[1] for number in batch.pictures.tolist()]
    assert spelt(batch.answers)[2::3] == whole


def test_regions_have_the_boxes_of_their_masks() -> None:
    batch = RegionBatches("a", DRAWING, Mix((1, 0, 0)), 16)[0]
    assert (batch.masks.sum((1, 2)) == 0).any()  # of what is not there
    for mask, patches, boxes in zip(batch.masks, batch.patches, batch.boxes, strict=True):
        if not mask.any() or not (patches > 0).any():
            continue
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        left, top = float(columns.min()) / 32, float(rows.min()) / 32
        right, bottom = float(columns.max() + 1) / 32, float(rows.max() + 1) / 32
        expected = torch.tensor([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])
        assert torch.allclose(boxes[patches > 0], expected)


def test_a_scaled_recipe_has_fewer_steps() -> None:
    scaled = Recipe().scaled(0.001)
    assert scaled.captions.num_steps == 6
    assert scaled.clip.detect == replace(Plans().detect, num_steps=1, warm_up=1)
