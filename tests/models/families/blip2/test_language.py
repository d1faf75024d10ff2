"""BLIP-2's language models: against transformers' own, and what their prompts may hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Blip2Config, Blip2ForConditionalGeneration

from models.base import Checkpoint, InputError, Item, ServedModel, Task
from models.families.blip2 import dialogue
from models.families.blip2.runners import make_runner
from models.families.family import RunnerParts
from models.generation.loop import Ranking
from models.inputs import CaptionInput, GenerationSettings, QuestionInput, RankInput, Turn
from models.layers.attention import causal_mask
from models.weights import CheckpointError
from tests import golden
from tests.models import asking

TURN = Turn("what shape is in the image?", "circle")
CANDIDATES = (
    "yes",
    "no",
    "red",
    "a red circle",
    "circle",
    "a teal rectangle in the image",
    "blue",
    "a",
    "yellow shape",
)
QUESTION = "what is it?"
POSITIONS = {"opt": 256, "t5": 512}


@pytest.fixture(params=["opt", "t5"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def checkpoint(served2: dict[str, ServedModel], kind: str) -> Checkpoint:
    return served2[kind].checkpoints[Task.VQA]


@pytest.fixture(scope="module")
def references() -> dict[str, Any]:
    """The language models of transformers."""
    folder = golden.BLIP2 / "checkpoints"
    return {
        name: Blip2ForConditionalGeneration.from_pretrained(folder / name, dtype=torch.float32).language_model.eval()
        for name in ("opt", "t5")
    }


def reference_logits(reference: Any, kind: str, embedded: Tensor, ids: Sequence[int]) -> Tensor:
    """Logits after the prompt and after each of `ids` but the last, `(tokens, vocabulary)`, one sequence at a time."""
    with torch.inference_mode():
        if kind == "t5":
            logits = reference(inputs_embeds=embedded[None], decoder_input_ids=torch.tensor([[0, *ids[:-1]]])).logits
            return logits[0]
        following = reference.get_input_embeddings()(torch.tensor(ids[:-1], dtype=torch.long))
        return reference(inputs_embeds=torch.cat([embedded, following])[None]).logits[0, len(embedded) - 1 :]


def embedded_prompt(checkpoint: Checkpoint, item: Item) -> Tensor:
    heads: Any = checkpoint.heads
    ids = item.payload.ids or item.payload.how.prompt
    return torch.cat([heads.queries([item])[0], heads.network.language_model.tokens(torch.tensor(ids))])


def test_logits_are_those_of_transformers(checkpoint: Checkpoint, kind: str, references: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = asking.network(checkpoint).language_model
    embedded, ids = torch.randn(30, 64), torch.randint(3, 200, (12,))
    expected = reference_logits(references[kind], kind, embedded, ids.tolist())
    if kind == "t5":
        mask = torch.ones(1, len(embedded), dtype=torch.bool)
        source = model.look_at(model.encode(embedded[None], mask), mask)
        fed = torch.cat([torch.tensor([0]), ids[:-1]])[None]
        states, _ = model.decode(fed, causal_mask(torch.ones_like(fed, dtype=torch.bool)), source)
    else:
        x = torch.cat([embedded, model.tokens(ids[:-1])])[None]
        mask = causal_mask(torch.ones(x.shape[:2], dtype=torch.bool))
        states, _ = model(x, torch.arange(x.shape[1])[None], mask)
        states = states[:, len(embedded) - 1 :]
    torch.testing.assert_close(model.logits(states)[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("k", [3, len(CANDIDATES)])
def test_candidates_are_ranked_by_their_whole_likelihood(
    checkpoint: Checkpoint, kind: str, references: dict[str, Any], k: int
) -> None:
    item = asking.item(checkpoint, "evqa_a", RankInput("what color is the shape?", CANDIDATES, k, (TURN,)))
    candidates = item.payload.how.candidates
    embedded = embedded_prompt(checkpoint, item)
    firsts, sums = [], []
    for ids in candidates:
        log_probabilities = reference_logits(references[kind], kind, embedded, ids).log_softmax(-1)
        chosen = log_probabilities[torch.arange(len(ids)), ids]
        firsts.append(chosen[0].item())
        sums.append(chosen.sum().item())
    best = np.argsort(firsts)[::-1][:k]
    expected = np.zeros(len(candidates))
    expected[best] = np.exp(np.array(sums)[best])
    (ours,) = asking.score(checkpoint, [item])
    np.testing.assert_allclose(ours, expected / expected.sum(), atol=1e-5)


def test_candidates_are_what_the_model_would_generate(checkpoint: Checkpoint) -> None:
    """With the same space before them, and the same stop token."""
    question = QuestionInput("what color is the shape?", settings=GenerationSettings(num_beams=1))
    item = asking.item(checkpoint, "evqa_a", question)
    (answer,) = asking.generate(checkpoint, [item])[0].sequences
    heads: Any = checkpoint.heads
    (ids,) = heads.prepare(RankInput(QUESTION, (answer.text,), 1)).payload.how.candidates
    assert len(ids) == answer.num_tokens
    assert heads._tokenizer.text(ids[:-1]) == answer.text


def test_questions_about_one_image_run_the_q_former_once(checkpoint: Checkpoint) -> None:
    seen: list[int] = []
    heads: Any = checkpoint.heads
    hook = heads.network.qformer.register_forward_pre_hook(lambda _, args: seen.append(len(args[0].layers[0].key)))
    images = ("evqa_a", "evqa_b", "evqa_a", "evqa_a")
    checkpoint.heads.generate([asking.item(checkpoint, image, QuestionInput(QUESTION)) for image in images])
    hook.remove()
    assert seen == [2]


# --- prompts ---


def words(checkpoint: Checkpoint, item: Item) -> str:
    """The prompt, back as text."""
    heads: Any = checkpoint.heads
    return heads._tokenizer.text(item.payload.ids or item.payload.how.prompt)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, "Question: is it red? Answer:"),
        ("Question: {} Short answer:", "Question: is it red? Short answer:"),
        ("{}", "is it red?"),
        ("in the image, {}", "in the image, is it red?"),
    ],
)
def test_the_template_of_a_question(checkpoint: Checkpoint, template: str | None, expected: str) -> None:
    assert words(checkpoint, checkpoint.heads.prepare(QuestionInput("is it red?", template=template))) == expected


def test_braces_are_text_like_any_other() -> None:
    history = (Turn("{} {0}", "{answer}"),)
    expected = "Question: {} {0} Answer: {answer}. Question: {x}{} Answer:"
    assert dialogue.prompt("{x}{}", None, history) == expected


@pytest.mark.parametrize("request_of", [QuestionInput, lambda *args: RankInput(args[0], ("yes", "no"), 2, args[1])])
def test_the_oldest_turns_are_dropped(checkpoint: Checkpoint, kind: str, request_of: Any) -> None:
    heads: Any = checkpoint.heads
    history = (*(Turn(f"is there a shape {number}?", "yes") for number in range(60)), TURN)
    item = heads.prepare(request_of(QUESTION, history))
    used, how = item.history_used, item.payload.how
    longest = max(map(len, how.candidates)) if isinstance(how, Ranking) else how.max_new_tokens

    def num_tokens(turns: Sequence[Turn]) -> int:
        prompt = dialogue.prompt(QUESTION, None, turns)
        return 8 + len(heads._ids(prompt)) + (longest if kind == "opt" else 0)

    assert num_tokens(history[-used:]) <= POSITIONS[kind] < num_tokens(history[-used - 1 :])
    last = heads.prepare(request_of(QUESTION, history[-used:])).payload
    assert (item.payload.ids, how.prompt) == (last.ids, last.how.prompt)
    assert asking.is_answered(checkpoint, "evqa_a", item)


def test_without_a_history_nothing_is_said_of_it(checkpoint: Checkpoint) -> None:
    for request in (QuestionInput(QUESTION), RankInput(QUESTION, CANDIDATES, 2), CaptionInput()):
        assert checkpoint.heads.prepare(request).history_used is None


def test_a_longer_answer_leaves_less_room_for_turns(served2: dict[str, ServedModel]) -> None:
    heads = served2["opt"].checkpoints[Task.VQA].heads

    def used(max_new_tokens: int) -> int:
        settings = GenerationSettings(max_new_tokens=max_new_tokens)
        return heads.prepare(QuestionInput(QUESTION, (TURN,) * 60, settings=settings)).history_used or 0

    assert used(5) > used(100) > used(200) > 0
    assert used(250) == 0


def test_a_prompt_that_does_not_fit_is_refused(checkpoint: Checkpoint) -> None:
    long = "is there a red shape? " * 200
    for request in (CaptionInput(long), QuestionInput(long, (TURN,)), RankInput(long, CANDIDATES, 2, (TURN,))):
        with pytest.raises(InputError, match=r"the prompt has \d+ tokens"):
            checkpoint.heads.prepare(request)


def test_generation_ends_where_the_positions_do(served2: dict[str, ServedModel]) -> None:
    checkpoint = served2["opt"].checkpoints[Task.CAPTION]
    settings = GenerationSettings(num_beams=1, max_new_tokens=200, min_new_tokens=200)
    prompt = "a red shape " * 76
    item = asking.item(checkpoint, "evqa_a", CaptionInput(prompt, settings))
    room = 256 - 8 - len(item.payload.how.prompt)
    assert 5 < room < 200
    assert asking.generate(checkpoint, [item])[0].sequences[0].num_tokens == room


@pytest.mark.parametrize("text", ["", " ", "\t"])
def test_a_candidate_without_a_token_is_refused(checkpoint: Checkpoint, text: str) -> None:
    with pytest.raises(InputError, match="candidate: has no character that the model reads"):
        checkpoint.heads.prepare(RankInput(QUESTION, ("red", text), 2))


def test_a_candidate_that_is_too_long_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(InputError, match=r"candidate: has \d+ tokens, at most 32"):
        checkpoint.heads.prepare(RankInput(QUESTION, ("red", "red " * 40), 2))


def test_a_cut_prompt_keeps_its_beginning(served2: dict[str, ServedModel]) -> None:
    whole, cut = (served2[name].checkpoints[Task.CAPTION].heads for name in ("opt", "opt-cut"))
    request = CaptionInput("a photo of " * 20)
    long, short = (heads.prepare(request).payload.how.prompt for heads in (whole, cut))
    assert short == long[:32]


def test_turns_are_dropped_before_a_question_is_cut(served2: dict[str, ServedModel]) -> None:
    heads = served2["opt-cut"].checkpoints[Task.VQA].heads
    alone = heads.prepare(QuestionInput("what is it?"))
    turns = tuple(Turn("a", "b") for _ in range(9))
    item = heads.prepare(QuestionInput("what is it?", turns))
    assert item.history_used is not None
    assert 0 < item.history_used < len(turns)
    ids, question = item.payload.how.prompt, alone.payload.how.prompt[1:]
    assert ids[-len(question) + 1 :] == question[1:]  # but for the space before it


def test_text_is_cleaned_as_the_authors_library_did(served2: dict[str, ServedModel]) -> None:
    heads: Any = served2["opt"].checkpoints[Task.CAPTION].heads
    assert heads._tokenizer.text(heads._tokenizer.pieces(" is it red ? no , it is n't .")) == "is it red? no, it isn't."


@pytest.mark.parametrize(
    ("model", "task", "folder", "changes", "complaint"),
    [
        ("opt", Task.VQA, "itm", {}, "the tokenizer is not the one of config.json: </s> is"),
        ("opt", Task.VQA, "opt", {"vocab_size": 500}, "the tokenizer has 501 entries, the vocabulary 500"),
        ("opt", Task.VQA, "opt", {"eos_token_id": 50118}, "the stop token is 50118, but the tokenizer has 501 entries"),
        ("t5", Task.VQA, "t5", {"decoder_start_token_id": None}, "the first token is None"),
        ("t5", Task.VQA, "opt_noimgtok", {"vocab_size": 512}, "the tokenizer is not the one of config.json"),
        ("opt", Task.MATCH, "opt", {}, "the tokenizer has 501 entries, the vocabulary 402"),
        ("opt", Task.MATCH, "t5", {}, "the first token is None"),
    ],
)
def test_another_checkpoints_tokenizer_is_refused(
    served2: dict[str, ServedModel], model: str, task: Task, folder: str, changes: dict[str, Any], complaint: str
) -> None:
    checkpoints = golden.BLIP2 / "checkpoints"
    config = Blip2Config.from_pretrained(checkpoints / ("itm" if task is Task.MATCH else model))
    for name, value in changes.items():
        setattr(config.text_config, name, value)
    network = asking.network(served2[model].checkpoints[task])
    with pytest.raises(CheckpointError, match=complaint):
        make_runner(RunnerParts(task, "unit", network, checkpoints / folder, config, torch.device("cpu")))
