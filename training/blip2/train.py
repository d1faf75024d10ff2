"""Train the demo's BLIP-2 as the paper does it (Li et al. 2023), and export it: `python -m training.blip2.train`.

First a language model is trained on texts alone. Stage 1 trains the Q-Former over the BLIP demo's tower, which is
frozen (ITC, ITM, ITG); stage 2 lets the queries speak to the language model, which is frozen too (LM), in the end
mostly in dialogues about several shapes. Each leaves its weights in the work folder, where a later run finds them; one
that was broken off goes on."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from models.families.blip2.opt import OPT
from models.layers.vit import ViT
from training import easyvqa
from training.blip2.export import CHECKPOINTS, export
from training.blip2.language import Speller, learn_spelling, new_model, text_loss
from training.blip2.measure import measure_language, measure_speaking
from training.blip2.network import Querying, Speaking
from training.blip2.texts import Text, describing_text, listing, random_text, simple_text, single_text, talking_text
from training.captions import describe
from training.data import JointTexts, Mix, joint_texts, normalise, stack
from training.easyvqa import Example
from training.joint import joint_loss
from training.loop import Plan, load, train
from training.measure import Figures, generated, measure_matching
from training.questions import Question
from training.scenes import Pixels, Scene
from training.train import NUM_HELD_OUT

SEED = 20230130  # the day of the paper
NUM_PARTS = 3  # of a batch of texts


@dataclass(frozen=True, slots=True)
class Lesson:
    """Up to a step, texts of one kind only."""

    end: int
    text: Callable[[Random, Scene, Sequence[Question]], Text]


@dataclass(frozen=True, slots=True)
class Recipe:
    language: Plan = Plan(4000, peak=1e-3, floor=0.0, num_pictures=96)
    language_lessons: tuple[Lesson, ...] = (Lesson(700, simple_text), Lesson(1800, single_text))
    querying: Plan = Plan(3000, peak=5e-4, floor=0.0, num_pictures=32)
    speaking: Plan = Plan(3000, peak=1e-3, floor=0.0, num_pictures=48)
    speaking_on: Plan = Plan(2200, peak=1e-3, floor=0.0, num_pictures=48)  # stage 2 once more, from where it ended
    speaking_lessons: tuple[Lesson, ...] = (Lesson(700, describing_text),)
    talking: Plan = Plan(  # and from there, mostly dialogues, about other pictures
        2400, peak=8e-4, floor=0.0, num_pictures=48, warm_up=100, hold=2000, dtype=torch.bfloat16
    )
    talking_lessons: tuple[Lesson, ...] = (Lesson(2400, talking_text),)
    talking_mix: Mix = Mix(0.0, (0.15, 0.35, 0.5))
    num_texts: int = 2  # a picture, in stage 2
    pool_size: int = 20_000  # pictures
    pool_mix: Mix = Mix(0.0, (0.4, 0.3, 0.3), borderline=0.2)
    num_watched: int = 300  # generated pictures


@dataclass(frozen=True)
class Pool:
    """What is trained on. `questions[i]`: the public ones about picture i."""

    scenes: Sequence[Scene]
    questions: Sequence[Sequence[Question]]
    pictures: Sequence[Pixels]
    tower: ViT

    @cached_property
    def features(self) -> Tensor:
        """`(pictures, 65, width)`, half. The tower is frozen: it sees each picture once, and no pool in vain."""
        parts = torch.split(stack(self.pictures), 200)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return torch.cat([self.tower(normalise(part)).half() for part in tqdm(parts, desc="tower")])


@dataclass(frozen=True, slots=True)
class TextBatch:
    """`described`: ids (n, queries) in the place of the image; `pictures`: their numbers (n,). `ids` (lines, tokens)
    come shortest first; `owners` (lines,) tells of which picture each is; `learned` are the tokens that count."""

    pictures: Tensor
    described: Tensor
    owners: Tensor
    ids: Tensor
    learned: Tensor


class TextBatches(Dataset[TextBatch]):
    """The `lessons` one after another, and then texts of all kinds."""

    def __init__(
        self,
        name: str,
        pool: Pool,
        speller: Speller,
        num_pictures: int,
        num_texts: int,
        lessons: Sequence[Lesson] = (),
    ) -> None:
        self.name, self.pool, self.speller, self.lessons = name, pool, speller, lessons
        self.num_pictures, self.num_texts = num_pictures, num_texts

    def __getitem__(self, index: int) -> TextBatch:
        rng, pool = Random(f"{self.name} {index}"), self.pool
        text = next((lesson.text for lesson in self.lessons if index < lesson.end), random_text)
        numbers = rng.sample(range(len(pool.scenes)), self.num_pictures)
        texts = [
            (text(rng, pool.scenes[number], pool.questions[number]), owner)
            for owner, number in enumerate(numbers)
            for _ in range(self.num_texts)
        ]
        texts.sort(key=lambda one: sum(len(part) for part, _ in one[0]))
        described = torch.tensor([self.speller.described(pool.scenes[number]) for number in numbers])
        owners = torch.tensor([owner for _, owner in texts])
        return TextBatch(torch.tensor(numbers), described, owners, *self.speller.lines([text for text, _ in texts]))


def loss_in_parts(model: OPT, told: Tensor, batch: TextBatch) -> Tensor:
    """Lines of similar length share a pass, so that little of it is padding. `told`: (n, queries, width)."""
    losses = []
    for rows in torch.arange(len(batch.ids)).chunk(NUM_PARTS):
        width = int(batch.learned[rows].any(0).nonzero().max()) + 1
        ids, learned = batch.ids[rows, :width], batch.learned[rows, :width]
        losses.append(text_loss(model, told[batch.owners[rows]], ids, learned))
    return torch.cat(losses).mean()


class QueryBatches(Dataset[tuple[Tensor, JointTexts]]):
    """Stage 1: numbers of pictures, and their texts. Every other caption tells all there is to say."""

    def __init__(self, name: str, pool: Pool, num_pictures: int) -> None:
        self.name, self.pool, self.num_pictures = name, pool, num_pictures

    def __getitem__(self, index: int) -> tuple[Tensor, JointTexts]:
        rng = Random(f"{self.name} {index}")
        numbers = rng.sample(range(len(self.pool.scenes)), self.num_pictures)
        scenes = [self.pool.scenes[number] for number in numbers]
        captions = [str((describe if rng.random() < 0.3 else listing)(scene)) for scene in scenes]
        return torch.tensor(numbers), joint_texts(rng, scenes, captions)


class Training:
    """Runs a recipe in a folder. `public`: pictures to train on; `held_out`: to watch."""

    def __init__(self, recipe: Recipe, work: Path, public: Sequence[Example], held_out: Sequence[Example]) -> None:
        self.recipe, self.work, self.public, self.held_out = recipe, work, public, held_out
        self.watched = generated("watch", recipe.num_watched)
        torch.manual_seed(SEED)
        self.querying = Querying()
        self.pool = self.draw("pool", recipe.pool_mix)
        self.speller = learn_spelling(self.pool.scenes)

    def draw(self, name: str, mix: Mix) -> Pool:
        rng, public = Random(f"{SEED} {name}"), self.public
        number = self.recipe.pool_size - len(public)
        drawn = [(example.scene, example.pixels) for example in public]
        drawn.extend(mix.draw(rng, ()) for _ in tqdm(range(number), desc=name, mininterval=2))
        scenes, pictures = zip(*drawn, strict=True)
        return Pool(scenes, [*(example.questions for example in public), *[()] * number], pictures, self.querying.tower)

    def learn_language(self) -> OPT:
        plan, file, speller = self.recipe.language, self.work / "language.pt", self.speller
        torch.manual_seed(SEED + 1)
        model = new_model(speller)
        if load(model, file):
            return model

        def loss(batch: TextBatch) -> Tensor:
            return loss_in_parts(model, model.tokens(batch.described), batch)

        def look() -> Figures:
            return measure_language(model, speller, self.held_out, self.watched)

        batches = TextBatches(
            f"{SEED} language", self.pool, speller, plan.num_pictures, 1, self.recipe.language_lessons
        )
        train("language", plan, model, batches, loss, look, file)
        return model

    def query(self) -> None:
        """Stage 1."""
        model, plan, file = self.querying, self.recipe.querying, self.work / "querying.pt"
        if load(model, file):
            return
        torch.manual_seed(SEED + 2)

        def loss(batch: tuple[Tensor, JointTexts]) -> Tensor:
            numbers, texts = batch
            return joint_loss(model, model.norm(self.pool.features[numbers].float()), texts)

        def look() -> Figures:
            return measure_matching(model, self.held_out, self.watched)

        train("stage 1", plan, model, QueryBatches(f"{SEED} stage 1", self.pool, plan.num_pictures), loss, look, file)

    def speak(self, language_model: OPT) -> Speaking:
        """Stage 2."""
        torch.manual_seed(SEED + 3)
        model, recipe = Speaking(self.querying, language_model), self.recipe
        self._speak(model, "stage 2", recipe.speaking, self.pool, recipe.speaking_lessons)
        self._speak(model, "stage 2, on", recipe.speaking_on, self.pool)
        model.half().float()  # as an export has them, so that this may as well go on from one
        pool = self.draw("talking pool", recipe.talking_mix)
        self._speak(model, "stage 2, talking", recipe.talking, pool, recipe.talking_lessons)
        return model

    def _speak(self, model: Speaking, name: str, plan: Plan, pool: Pool, lessons: Sequence[Lesson] = ()) -> None:
        file = self.work / f"{name}.pt"
        if load(model, file):
            return

        def loss(batch: TextBatch) -> Tensor:
            told = model.tell(pool.features[batch.pictures].float())
            return loss_in_parts(model.language_model, told, batch)

        def look() -> Figures:
            return measure_speaking(model, self.speller, self.held_out, self.watched)

        texts = self.recipe.num_texts
        batches = TextBatches(f"{SEED} {name}", pool, self.speller, plan.num_pictures, texts, lessons)
        train(name, plan, model, batches, loss, look, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=Path("build/demo-blip2"), help="for weights (default: %(default)s)"
    )
    parser.add_argument("--to", type=Path, default=CHECKPOINTS, help="for checkpoints (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    examples = easyvqa.load("train")
    training = Training(Recipe(), options.work, examples[:-NUM_HELD_OUT], examples[-NUM_HELD_OUT:])
    language_model = training.learn_language()
    training.query()
    export(training.querying, training.speak(language_model), training.speller, options.to)


if __name__ == "__main__":
    main()
