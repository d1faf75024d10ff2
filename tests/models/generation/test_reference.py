"""Token for token what transformers generates, where its rules are those of the authors' libraries."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Blip2ForConditionalGeneration, BlipForQuestionAnswering

from models.base import Checkpoint, Item, ServedModel, Task
from models.inputs import CaptionInput, GenerationSettings, QuestionInput
from tests import golden
from tests.models import asking

IMAGES = ("s0_ev0", "s1_ev1", "s3_china_160x120", "s5_flower_L_90x140")
QUESTIONS = ("what is it?", "is there a red circle in the picture, or is it a blue one?", "color?")
PROMPTS = ("", "a photo of", "Question: what color is the shape? Answer:")
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1},
    "greedy with a minimum": {"num_beams": 1, "min_new_tokens": 6},
    "beams": {"num_beams": 3},
    "many beams": {"num_beams": 6},
    "beams that want to be short": {"num_beams": 3, "length_penalty": -1.0},
    "beams whatever their length": {"num_beams": 3, "length_penalty": 0.0},
}
# Left to golden/, as the rules differ: longer-is-better and a minimum (when a search of several beams has ended), and
# of OPT the repetition penalty (LAVIS counts a start token that transformers 5 no longer has).
PENALTY: dict[str, dict[str, Any]] = {"greedy with a penalty": {"num_beams": 1, "repetition_penalty": 1.5}}


def ours(checkpoint: Checkpoint, item: Item) -> str:
    (generated,) = asking.generate(checkpoint, [item])
    return generated.sequences[0].text


@pytest.fixture(scope="module")
def vqa_reference() -> Any:
    folder = golden.BLIP / "checkpoints" / "vqa"
    return BlipForQuestionAnswering.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("options", (SETTINGS | PENALTY).values(), ids=SETTINGS | PENALTY)
def test_blip_answers(served: dict[str, ServedModel], vqa_reference: Any, options: dict[str, Any]) -> None:
    checkpoint = served["blip"].checkpoints[Task.VQA]
    heads: Any = checkpoint.heads
    stop_id, dec = heads.stop_id, torch.tensor([[heads._special.dec]])
    settings = GenerationSettings(max_new_tokens=12, **options)
    for image in IMAGES:
        for question in QUESTIONS:
            item = asking.item(checkpoint, image, QuestionInput(question, settings=settings))
            with torch.inference_mode():
                states = vqa_reference.text_encoder(
                    input_ids=torch.tensor([item.payload.ids]), encoder_hidden_states=asking.states(checkpoint, image)
                ).last_hidden_state
                ids = vqa_reference.text_decoder.generate(
                    input_ids=dec,
                    encoder_hidden_states=states,
                    max_new_tokens=12,
                    eos_token_id=stop_id,
                    pad_token_id=0,
                    do_sample=False,
                    **options,
                )[0, 1:].tolist()
            ids = ids[: ids.index(stop_id)] if stop_id in ids else ids
            assert ours(checkpoint, item) == heads._tokenizer.text(ids)


@pytest.fixture(scope="module")
def opt_reference() -> Any:
    folder = golden.BLIP2 / "checkpoints" / "opt"
    return Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).language_model.eval()


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_opt_captions(served2: dict[str, ServedModel], opt_reference: Any, options: dict[str, Any]) -> None:
    checkpoint = served2["opt"].checkpoints[Task.CAPTION]
    heads: Any = checkpoint.heads
    settings = GenerationSettings(max_new_tokens=12, **options)
    for image in ("evqa_a", "evqa_b", "china_wide"):
        for prompt in PROMPTS:
            item = asking.item(checkpoint, image, CaptionInput(prompt, settings))
            read = torch.tensor(item.payload.how.prompt)
            with torch.inference_mode():
                embedded = torch.cat([heads.queries([item])[0], heads.network.language_model.tokens(read)])
                ids = opt_reference.generate(
                    inputs_embeds=embedded[None],
                    attention_mask=torch.ones(1, len(embedded), dtype=torch.long),
                    max_new_tokens=12,
                    eos_token_id=heads.stop_id,
                    pad_token_id=1,
                    do_sample=False,
                    **options,
                )[0].tolist()
            ids = ids[: ids.index(heads.stop_id)] if heads.stop_id in ids else ids
            assert ours(checkpoint, item) == heads._tokenizer.text(ids)
