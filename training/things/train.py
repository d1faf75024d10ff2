"""Train the things demo from scratch, and export it: `python -m training.things.train`.

As the paper does it (Li et al. 2022), on drawn scenes. The tower learns which things there are, first alone, then
beside captions (LM). Then come ITC, ITM and LM together; then, the tower left as it is, ITC and ITM by themselves, and
questions and answers; after that a small CLIP, and on its tower CLIPSeg and OWL-ViT. Each phase leaves its weights in
the work folder, and now and then how far it has come; a later run goes on from there, and ends as it would have
without a break."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from models.device import choose_dtype
from models.layers.vit import ViTConfig
from training.data import Batch, JointBatch, QuestionBatch, normalise
from training.export import export
from training.joint import joint_loss, retrieval_loss
from training.loop import Plan, load, train
from training.measure import Figures
from training.network import Answering, Design, PreTraining
from training.things import data, measure
from training.things.clip import Contrast, ContrastBatches, Detect, Plans, Segment, sizes
from training.things.clip_export import export_clip
from training.things.data import Drawing, MatchBatch, TaughtCaptions
from training.things.measure import Watched, watched
from training.things.pictures import STYLES, UNSEEN, WORK, Look, looks
from training.things.scenes import Mix, Scene, Sprites, sprites
from training.things.tower import Taught
from training.things.words import Words, words_of

SEED = 20220128  # the day of the paper
CHECKPOINTS = Path("models/checkpoints/demo-things")


class OtherRecipeError(Exception):
    """A work folder has phases of another recipe: this one's later phases would rest on them."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All phases, and the tower. The steps are what 75 minutes allow two cores that compute in bf16."""

    tower: ViTConfig = ViTConfig(64, 8, 128, num_layers=6, num_heads=4, mlp_width=512, norm_epsilon=1e-6)
    classes: Plan = Plan(4500, peak=1e-3, floor=1e-4, num_pictures=32)
    class_mix: Mix = Mix((0.4, 0.3, 0.3), equal=0)
    captions: Plan = Plan(6000, peak=7e-4, floor=2e-4, num_pictures=32)
    joint: Plan = Plan(2500, peak=5e-4, floor=0.0, num_pictures=32)
    match: Plan = Plan(1200, peak=5e-4, floor=0.0, num_pictures=32)
    answers: Plan = Plan(3400, peak=1e-3, floor=0.0, num_pictures=16)
    mix: Mix = Mix((0.3, 0.35, 0.35))
    num_questions: int = 16  # a picture, of any kind
    num_whole: int = 4  # beside them: what the whole picture shows, which is the hardest to say
    pool_size: int = 40_000  # pictures, of what is learned with the tower as it is
    num_watched: int = 200  # scenes of one thing, and as many of two
    clip: Plans = Plans()

    def computed_in(self, dtype: torch.dtype) -> Recipe:
        """Classes, captions and joint, which take half the time in bf16 and learn as much; the others take as long."""
        classes, captions, joint = (replace(plan, dtype=dtype) for plan in (self.classes, self.captions, self.joint))
        return replace(self, classes=classes, captions=captions, joint=joint)

    def scaled(self, scale: float) -> Recipe:
        """With so many times the steps and pictures."""
        return replace(
            self,
            classes=self.classes.scaled(scale),
            captions=self.captions.scaled(scale),
            joint=self.joint.scaled(scale),
            match=self.match.scaled(scale),
            answers=self.answers.scaled(scale),
            clip=self.clip.scaled(scale),
            pool_size=max(2 * self.match.num_pictures, round(self.pool_size * scale)),
            num_watched=max(2, round(self.num_watched * min(1, scale))),
        )


def drawing_of(every: Sequence[Look], words: Words, styles: tuple[str, ...], tower: ViTConfig) -> Drawing:
    found = sprites(every, styles, [noun.name for noun in words.nouns])
    return Drawing(words, Sprites(found), tower.image_size, tower.patch_size)


class Training:
    """Runs a recipe in a folder."""

    def __init__(self, recipe: Recipe, work: Path, drawing: Drawing) -> None:
        self.recipe, self.work, self.drawing, self.words = recipe, work, drawing, drawing.words
        self.scenes: Watched = watched(drawing, recipe.num_watched)
        torch.manual_seed(SEED)
        self.model = PreTraining(Design(recipe.tower, self.words.vocabulary))
        self.taught = Taught(self.model, len(self.words.nouns))

    def phase(
        self,
        name: str,
        plan: Plan,
        model: nn.Module,
        batches: Dataset[Batch],
        loss_of: Callable[[Batch], Tensor],
        look: Callable[[], Figures],
    ) -> None:
        file = self.work / f"{name}.pt"
        if load(model, file):
            return
        torch.manual_seed(SEED)
        train(name, plan, model, batches, loss_of, look, file)

    def classify(self) -> None:
        plan, model = self.recipe.classes, self.taught
        batches = data.TowerBatches(f"{SEED} classes", self.drawing, self.recipe.class_mix, plan.num_pictures)
        look = lambda: measure.measure_tower(model, self.scenes.one, self.words)  # noqa: E731
        self.phase("classes", plan, model, batches, model.loss, look)

    def caption(self) -> None:
        model, plan = self.model, self.recipe.captions

        def loss(batch: TaughtCaptions) -> Tensor:
            seen = model.see(normalise(batch.taught.pixels))
            return model.caption_loss(seen, batch.captions) + self.taught.loss_of(seen, batch.taught)

        batches = data.CaptionBatches(f"{SEED} captions", self.drawing, self.recipe.mix, plan.num_pictures)
        look = lambda: measure.measure_captions(model, self.scenes, self.words)  # noqa: E731
        self.phase("captions", plan, self.taught, batches, loss, look)

    def join(self) -> None:
        model, plan = self.model, self.recipe.joint

        def loss(batch: JointBatch) -> Tensor:
            return joint_loss(model, model.see(normalise(batch.pixels)), batch.texts)

        def look() -> Figures:
            captions = measure.measure_captions(model, self.scenes, self.words)
            return captions | measure.measure_matching(model, self.scenes, self.words)

        batches = data.JointBatches(f"{SEED} joint", self.drawing, self.recipe.mix, plan.num_pictures)
        self.phase("joint", plan, model, batches, loss, look)

    @cached_property
    def pool(self) -> tuple[list[Scene], Tensor]:
        """Scenes, and their features, as the tower sees each once: (scenes, tokens, width)."""
        rng = Random(f"{SEED} pool")
        drawn = [
            self.drawing.draw(rng, self.recipe.mix, 1)[0]
            for _ in tqdm(range(self.recipe.pool_size), desc="pool", mininterval=2)
        ]
        return [one.scene for one in drawn], measure.features(self.model, drawn)

    def match(self) -> PreTraining:
        """On the pool. Its decoder, which shares weights with its encoder, is of no use afterwards."""
        plan, model = self.recipe.match, deepcopy(self.model)
        if load(model, self.work / "match.pt"):
            return model
        scenes, seen = self.pool

        def loss(batch: MatchBatch) -> Tensor:
            return retrieval_loss(model, seen[batch.pictures].float(), batch.texts)

        batches = data.MatchBatches(f"{SEED} match", scenes, self.words, plan.num_pictures)
        look = lambda: measure.measure_matching(model, self.scenes, self.words)  # noqa: E731
        self.phase("match", plan, model, batches, loss, look)
        return model

    def answer(self) -> Answering:
        """On the pool."""
        plan, model = self.recipe.answers, Answering(self.model)
        if load(model, self.work / "answers.pt"):
            return model
        scenes, seen = self.pool

        def loss(batch: QuestionBatch) -> Tensor:
            return model.loss(seen[batch.pictures].float(), batch.questions, batch.answers)

        batches = data.QuestionBatches(
            f"{SEED} questions",
            scenes,
            self.words,
            plan.num_pictures,
            self.recipe.num_questions,
            self.recipe.num_whole,
        )
        look = lambda: measure.measure_answers(model, self.model, self.scenes, self.words)  # noqa: E731
        self.phase("answers", plan, model, batches, loss, look)
        return model

    def contrast(self) -> Contrast:
        plan = self.recipe.clip.contrast
        torch.manual_seed(SEED)
        model = Contrast(sizes(self.recipe.tower, self.words), self.model.tower)
        batches = ContrastBatches(f"{SEED} contrast", self.drawing, self.recipe.mix, plan.num_pictures)
        look = lambda: measure.measure_contrast(model, self.scenes.one, self.words)  # noqa: E731
        self.phase("contrast", plan, model, batches, model.loss, look)
        return model

    def segment(self, trained: Contrast) -> Segment:
        plan = self.recipe.clip.segment
        torch.manual_seed(SEED)
        model = Segment(sizes(self.recipe.tower, self.words), trained.clip)
        batches = data.RegionBatches(f"{SEED} segment", self.drawing, self.recipe.mix, plan.num_pictures)
        look = lambda: measure.measure_segment(model, self.scenes.two, self.words)  # noqa: E731
        self.phase("segment", plan, model, batches, model.loss, look)
        return model

    def detect(self, trained: Contrast) -> Detect:
        plan = self.recipe.clip.detect
        torch.manual_seed(SEED)
        model = Detect(sizes(self.recipe.tower, self.words), trained.clip, self.words)
        batches = data.RegionBatches(f"{SEED} detect", self.drawing, self.recipe.mix, plan.num_pictures)
        look = lambda: measure.measure_detect(model, self.scenes.two, self.words)  # noqa: E731
        self.phase("detect", plan, model, batches, model.loss, look)
        return model

    def claim(self) -> None:
        """Raises OtherRecipeError."""
        file, own = self.work / "recipe.txt", repr(self.recipe)
        found = file.read_text() if file.exists() else ""
        if found != own and any(self.work.glob("*.p*t")):
            raise OtherRecipeError(
                f"{self.work} has phases of another recipe, or of a CPU that computes in another precision:"
                " name another folder, or remove its .pt and .part files"
            )
        file.write_text(own)

    def run(self, to: Path) -> None:
        """All phases, and the checkpoints. Raises OtherRecipeError."""
        self.claim()
        self.classify()
        self.caption()
        self.join()
        matching, answering = self.match(), self.answer()
        export(self.model, answering, to, matching)
        contrast = self.contrast()
        export_clip(contrast.clip, self.segment(contrast).clipseg, self.detect(contrast).owl, self.words, to)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK, help="for pictures and weights (default: %(default)s)")
    parser.add_argument(
        "--to", type=Path, help=f"for checkpoints (default: {CHECKPOINTS}, or at another scale in the work folder)"
    )
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, help="of steps and pictures (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = Recipe().scaled(options.scale).computed_in(choose_dtype("auto", torch.device("cpu")))
    every = looks(options.work)
    styles = tuple(style for style in STYLES if style != UNSEEN)
    work, to = options.work, options.to or CHECKPOINTS
    if options.scale != 1:  # a look, which leaves a whole run's weights alone
        work = options.work / f"scale-{options.scale:g}"
        work.mkdir(exist_ok=True)
        to = options.to or work
    try:
        Training(recipe, work, drawing_of(every, words_of(every), styles, recipe.tower)).run(to)
    except OtherRecipeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
