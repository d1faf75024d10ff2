"""Train the demo model from scratch, as the paper does it (Li et al. 2022), and export it: `python -m training.train`.

Phase 1 writes captions (LM alone). Phase 2 adds ITC and ITM with hard negatives, all over one shared tower. Phase 3
keeps the tower as it is and trains the VQA encoder-decoder. Each phase leaves its weights in the work folder, where a
later run finds them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from tqdm import tqdm

from training import easyvqa
from training.data import (
    CaptionBatch,
    CaptionBatches,
    JointBatch,
    JointBatches,
    Mix,
    QuestionBatch,
    QuestionBatches,
    normalise,
)
from training.easyvqa import Example
from training.export import CHECKPOINTS, export
from training.joint import joint_loss
from training.loop import Plan, load, train
from training.measure import Figures, generated, measure_answers, measure_captions, measure_matching, see
from training.network import Answering, PreTraining

SEED = 20220128  # the day of the paper
NUM_HELD_OUT = 400  # of the public train pictures, for watching


@dataclass(frozen=True, slots=True)
class Recipe:
    """All three phases."""

    captions: Plan = Plan(5000, peak=7e-4, floor=3e-4, num_pictures=32)
    caption_mix: Mix = Mix(0.1, (0.7, 0.2, 0.1))
    joint: Plan = Plan(4500, peak=5e-4, floor=0.0, num_pictures=32)
    joint_mix: Mix = Mix(0.1, (0.5, 0.25, 0.25), borderline=0.4)
    answers: Plan = Plan(3000, peak=5e-4, floor=0.0, num_pictures=16)
    num_questions: int = 16  # a picture
    pool_size: int = 20_000  # pictures
    pool_mix: Mix = Mix(0.0, (0.4, 0.3, 0.3))
    num_watched: int = 300  # generated pictures


class Training:
    """Runs a recipe in a folder. `public`: pictures to train on; `held_out`: to watch."""

    def __init__(self, recipe: Recipe, work: Path, public: Sequence[Example], held_out: Sequence[Example]) -> None:
        self.recipe, self.work, self.public, self.held_out = recipe, work, public, held_out
        self.scenes = generated("watch", recipe.num_watched)
        self.model = PreTraining()

    def caption(self) -> None:
        """Phase 1."""
        model, plan, file = self.model, self.recipe.captions, self.work / "phase1.pt"
        if load(model, file):
            return

        def loss(batch: CaptionBatch) -> Tensor:
            return model.caption_loss(model.see(normalise(batch.pixels)), batch.captions)

        batches = CaptionBatches(f"{SEED} captions", self.recipe.caption_mix, self.public, plan.num_pictures)
        look = lambda: measure_captions(model, self.held_out, self.scenes)  # noqa: E731
        train("phase 1", plan, model, batches, loss, look, file)

    def join(self) -> None:
        """Phase 2."""
        model, plan, file = self.model, self.recipe.joint, self.work / "phase2.pt"
        if load(model, file):
            return
        torch.manual_seed(SEED + 2)

        def loss(batch: JointBatch) -> Tensor:
            return joint_loss(model, model.see(normalise(batch.pixels)), batch.texts)

        def look() -> Figures:
            captions = measure_captions(model, self.held_out, self.scenes)
            return captions | measure_matching(model, self.held_out, self.scenes)

        batches = JointBatches(f"{SEED} joint", self.recipe.joint_mix, self.public, plan.num_pictures)
        train("phase 2", plan, model, batches, loss, look, file)

    def answer(self) -> Answering:
        """Phase 3, on the features of a pool of pictures, which the tower sees once."""
        model, plan, file = Answering(self.model), self.recipe.answers, self.work / "phase3.pt"
        if load(model, file):
            return model
        rng, public = Random(f"{SEED} pool"), self.public
        drawn = [(example.scene, example.pixels) for example in public]
        more = tqdm(range(self.recipe.pool_size - len(public)), desc="pool", mininterval=2)
        drawn.extend(self.recipe.pool_mix.draw(rng, ()) for _ in more)
        with torch.no_grad():
            pool = see(self.model, [pixels for _, pixels in drawn]).half()  # (pictures, 65, width)

        def loss(batch: QuestionBatch) -> Tensor:
            return model.loss(pool[batch.pictures].float(), batch.questions, batch.answers)

        batches = QuestionBatches(
            f"{SEED} questions",
            [scene for scene, _ in drawn],
            [example.questions for example in public] + [()] * (len(drawn) - len(public)),
            plan.num_pictures,
            self.recipe.num_questions,
        )
        look = lambda: measure_answers(model, self.model, self.held_out, self.scenes)  # noqa: E731
        train("phase 3", plan, model, batches, loss, look, file)
        return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="for weights (default: %(default)s)")
    parser.add_argument("--to", type=Path, default=CHECKPOINTS, help="for checkpoints (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    examples = easyvqa.load("train")
    training = Training(Recipe(), options.work, examples[:-NUM_HELD_OUT], examples[-NUM_HELD_OUT:])
    training.caption()
    training.join()
    export(training.model, training.answer(), options.to)


if __name__ == "__main__":
    main()
