"""More of what the models know: likelihood of a given caption, states before the projections, videos. Golden where the
authors have it, else transformers or the authors' formula; and promise 1, batched equals alone, for all of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval, BlipForImageTextRetrieval

from models.base import Checkpoint, InputError, Item, ServedModel, Task
from models.inputs import ImageEmbeddingInput, Input, LikelihoodInput, PairInput, StatesInput
from models.outputs import Video
from tests import golden
from tests.models import asking

IMAGES = ("s0_ev0", "s1_ev1", "s3_china_160x120")
TEXTS = ("red", "a small gray triangle", "there is a blue circle , and it is near the bottom left of the picture")
PROMPT = "a picture of "
ITM2 = golden.blip2()["itm"]
NUM_FRAMES = 8


@pytest.fixture(scope="module")
def every(served: dict[str, ServedModel], served2: dict[str, ServedModel]) -> dict[str, ServedModel]:
    return served | served2


def together_and_alone(checkpoint: Checkpoint, items: list[Item]) -> tuple[list[Any], list[Any]]:
    assert len({item.shape for item in items}) == 1
    return asking.score(checkpoint, items), [asking.score(checkpoint, [item])[0] for item in items]


# --- likelihood ---


@pytest.mark.parametrize("case", golden.cases("caption_teacher_forced"), ids=lambda case: case["text"][:40])
def test_the_likelihood_of_a_caption_is_the_mean_of_the_authors_logits(
    served: dict[str, ServedModel], case: dict[str, Any]
) -> None:
    checkpoint = served[golden.SERVED[case["checkpoint"]]].checkpoints[Task.CAPTION]
    item = asking.item(checkpoint, case["image"], LikelihoodInput(case["text"].removeprefix(PROMPT)))
    ids = case["decoder_input_ids"]
    assert item.payload.ids == ids
    log_probabilities = golden.array(case["logits"]).log_softmax(-1)
    chosen = [log_probabilities[place, following].item() for place, following in enumerate(ids[1:])]
    assert chosen == pytest.approx(case["target_logprobs"], abs=1e-5)
    (score,) = asking.score(checkpoint, [item])
    assert score == pytest.approx([np.mean(chosen[case["prompt_length_masked"] - 1 :])], abs=1e-5)


@pytest.mark.parametrize("model", ["opt", "t5"])
def test_the_likelihood_of_a_caption_under_a_language_model(served2: dict[str, ServedModel], model: str) -> None:
    """As transformers' language models compute it, with the inputs that LAVIS gives them."""
    checkpoint = served2[model].checkpoints[Task.CAPTION]
    reference: Any = Blip2ForConditionalGeneration.from_pretrained(
        golden.BLIP2 / "checkpoints" / model, dtype=torch.float32
    ).eval()
    language_model = reference.language_model
    for image in golden.blip2()[model]["images"]:
        for text in TEXTS:
            item = asking.item(checkpoint, image, LikelihoodInput(text))
            ids = torch.tensor([item.payload.ids])
            heads: Any = checkpoint.heads
            whole = [*heads._tokenizer.pieces(text), heads.stop_id]
            cut = [*whole[:31], heads.stop_id] if model == "t5" else whole[:31]
            assert item.payload.ids[1:] == (whole if len(whole) < 32 else cut)
            queries = heads.queries([item])
            with torch.inference_mode():
                if model == "opt":
                    embedded = torch.cat([queries, language_model.get_input_embeddings()(ids)], 1)
                    logits = language_model(inputs_embeds=embedded).logits[:, queries.shape[1] : -1]
                else:
                    end = language_model.get_input_embeddings()(torch.tensor([[heads.stop_id]]))
                    logits = language_model(
                        inputs_embeds=torch.cat([queries, end], 1), decoder_input_ids=ids[:, :-1]
                    ).logits
            expected = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).mean()
            (score,) = asking.score(checkpoint, [item])
            assert score == pytest.approx([expected.item()], abs=1e-5)


@pytest.mark.parametrize("model", ["blip", "wide", "opt", "t5"])
def test_likelihoods_together_equal_each_alone(every: dict[str, ServedModel], model: str) -> None:
    checkpoint = every[model].checkpoints[Task.CAPTION]
    order = (0, 4, 1, 8, 2, 7, 5, 3, 6)
    pairs = [(image, LikelihoodInput(text)) for image in IMAGES for text in TEXTS]
    items = [asking.item(checkpoint, *pairs[index]) for index in order] * 4  # more than one pass
    together, alone = together_and_alone(checkpoint, items)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.ptp(alone) > 0.1


@pytest.mark.parametrize("model", ["blip", "opt", "t5"])
def test_a_given_caption_is_cut_as_the_authors_do(every: dict[str, ServedModel], model: str) -> None:
    heads = every[model].checkpoints[Task.CAPTION].heads
    ids = heads.prepare(LikelihoodInput("red circle " * 40)).payload.ids
    assert len(ids) == {"blip": 40, "opt": 32, "t5": 33}[model]  # T5's decoder has a start token before LAVIS' 32
    assert (ids[-1] == getattr(heads, "stop_id", None)) is (model != "opt")  # OPT's, a line break, is cut
    with pytest.raises(InputError, match="no character that the model reads"):
        heads.prepare(LikelihoodInput("\x00" if model == "blip" else ""))


# --- states ---


def states(checkpoint: Checkpoint, image: str, *arguments: Any) -> Any:
    (found,) = asking.score(checkpoint, [asking.item(checkpoint, image, StatesInput(*arguments))])
    return found


@pytest.mark.parametrize("case", golden.cases("feature_extractor"), ids=lambda case: case["image"])
def test_states_of_blip_are_the_authors_features(served: dict[str, ServedModel], case: dict[str, Any]) -> None:
    checkpoint = served["blip"].checkpoints[Task.MATCH]
    for space in ("image", "text", "multimodal"):
        text = None if space == "image" else case["text"]
        found = states(checkpoint, case["image"], space, text)
        np.testing.assert_allclose(found, [case[f"{space}_row0"]], atol=1e-5)


def test_means_of_blip_are_those_of_transformers_states(served: dict[str, ServedModel]) -> None:
    checkpoint = served["blip"].checkpoints[Task.MATCH]
    reference: Any = BlipForImageTextRetrieval.from_pretrained(
        golden.BLIP / "checkpoints" / "retrieval", dtype=torch.float32
    ).eval()
    image = asking.states(checkpoint, IMAGES[0])
    np.testing.assert_allclose(states(checkpoint, IMAGES[0], "image", None, "mean"), image.mean(1), atol=1e-5)
    for text in TEXTS:
        alone, grounded = (
            torch.tensor([checkpoint.heads.prepare(StatesInput(space, text)).payload])
            for space in ("text", "multimodal")
        )
        with torch.inference_mode():
            expected = reference.text_encoder(alone).last_hidden_state
            looking = reference.text_encoder(grounded, encoder_hidden_states=image).last_hidden_state
        assert alone[0, 1:].tolist() == grounded[0, 1:].tolist()
        assert alone[0, 0] != grounded[0, 0]  # [CLS], [ENC]
        for space, reference_states in (("text", expected), ("multimodal", looking)):
            mean = states(checkpoint, IMAGES[0], space, text, "mean")
            np.testing.assert_allclose(mean, reference_states.mean(1), atol=1e-5)
            first = states(checkpoint, IMAGES[0], space, text)
            np.testing.assert_allclose(first, reference_states[:, 0], atol=1e-5)


def test_states_of_blip2_are_the_authors_features(served2: dict[str, ServedModel]) -> None:
    checkpoint = served2["opt"].checkpoints[Task.MATCH]
    for name, expected in ITM2["images"].items():
        queries = np.array(expected["query_output"])
        np.testing.assert_allclose(states(checkpoint, name, "image"), queries, atol=1e-5)
        np.testing.assert_allclose(states(checkpoint, name, "image", None, "mean"), [queries.mean(0)], atol=1e-5)
    for case in ITM2["multimodal"]:
        text, queries = ITM2["texts"][case["text"]]["text"], np.array(case["multimodal_embeds"])
        np.testing.assert_allclose(states(checkpoint, case["image"], "multimodal", text), queries, atol=1e-5)
        mean = states(checkpoint, case["image"], "multimodal", text, "mean")
        np.testing.assert_allclose(mean, [queries.mean(0)], atol=1e-5)


def test_texts_of_blip2_are_those_of_transformers(served2: dict[str, ServedModel]) -> None:
    checkpoint = served2["opt"].checkpoints[Task.MATCH]
    reference: Any = Blip2ForImageTextRetrieval.from_pretrained(
        golden.BLIP2 / "checkpoints" / "itm", dtype=torch.float32
    ).eval()
    for expected in ITM2["texts"].values():
        ids = torch.tensor([expected["input_ids_max32"]])
        with torch.inference_mode():
            hidden = reference.qformer(
                query_embeds=reference.embeddings(input_ids=ids), query_length=0, attention_mask=torch.ones_like(ids)
            ).last_hidden_state
        first = states(checkpoint, next(iter(ITM2["images"])), "text", expected["text"])
        np.testing.assert_allclose(first, hidden[:, 0], atol=1e-5)
        mean = states(checkpoint, next(iter(ITM2["images"])), "text", expected["text"], "mean")
        np.testing.assert_allclose(mean, hidden.mean(1), atol=1e-5)


@pytest.mark.parametrize("model", ["blip", "opt"])
@pytest.mark.parametrize("space", ["image", "text", "multimodal"])
@pytest.mark.parametrize("pooling", ["none", "mean"])
def test_states_together_equal_each_alone(every: dict[str, ServedModel], model: str, space: str, pooling: str) -> None:
    checkpoint = every[model].checkpoints[Task.MATCH]
    requests: list[tuple[str, Input]] = [
        (image, StatesInput(space, None if space == "image" else text, pooling)) for image in IMAGES for text in TEXTS
    ]
    together, alone = together_and_alone(checkpoint, [asking.item(checkpoint, *request) for request in requests])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.ptp(alone, axis=0).max() > 0.01
    several = model == "opt" and space != "text" and pooling == "none"
    assert alone[0].shape[0] == (8 if several else 1)


# --- videos ---


def video(checkpoint: Checkpoint, *names: str) -> Video:
    return Video(tuple(asking.features(checkpoint, name) for name in names))


def frames(first: int) -> list[str]:
    return [sorted(golden_images())[(first + number) % 6] for number in range(NUM_FRAMES)]


def golden_images() -> set[str]:
    return {case["image"] for case in golden.cases("itm")}


def test_a_video_is_the_authors_formula(served: dict[str, ServedModel]) -> None:
    """`evaluation` of eval_retrieval_video.py, with transformers' text encoder."""
    checkpoint = served["blip"].checkpoints[Task.MATCH]
    reference: Any = BlipForImageTextRetrieval.from_pretrained(
        golden.BLIP / "checkpoints" / "retrieval", dtype=torch.float32
    ).eval()
    names = frames(0)
    shown = video(checkpoint, *names)
    video_feat = torch.cat([asking.states(checkpoint, name) for name in names])  # (frames, tokens, width)
    with torch.inference_mode():
        video_embed = F.normalize(reference.vision_proj(video_feat[:, 0]).mean(0), dim=-1)
        (vectors,) = asking.score(
            checkpoint, [replace(checkpoint.heads.prepare(ImageEmbeddingInput()), features=shown)]
        )
        np.testing.assert_allclose(vectors[0], video_embed, atol=1e-6)
        for text in TEXTS:
            item = replace(checkpoint.heads.prepare(PairInput(text)), features=shown)
            tokens = video_feat.reshape(1, -1, video_feat.shape[-1])
            hidden = reference.text_encoder(torch.tensor([item.payload]), encoder_hidden_states=tokens)
            expected = reference.itm_head(hidden.last_hidden_state[:, 0])[0]
            (logits,) = asking.score(checkpoint, [item])
            np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("request_", [PairInput(TEXTS[1]), ImageEmbeddingInput()], ids=["itm", "itc"])
def test_videos_together_equal_each_alone(served: dict[str, ServedModel], request_: Input) -> None:
    checkpoint = served["blip"].checkpoints[Task.MATCH]
    prepared = checkpoint.heads.prepare(request_)
    videos = [video(checkpoint, *frames(first)[: NUM_FRAMES - 1], frames(0)[first]) for first in range(4)]
    items = [replace(prepared, features=one) for one in (*videos, videos[0])]
    together, alone = together_and_alone(checkpoint, items)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.ptp(alone, axis=0).max() > 0.001


def test_a_video_of_one_frame_is_that_picture(served: dict[str, ServedModel]) -> None:
    checkpoint = served["blip"].checkpoints[Task.MATCH]
    for request in (PairInput(TEXTS[0]), ImageEmbeddingInput()):
        prepared = checkpoint.heads.prepare(request)
        items = [
            replace(prepared, features=features)
            for features in (asking.features(checkpoint, IMAGES[0]), video(checkpoint, IMAGES[0]))
        ]
        assert items[0].shape != items[1].shape
        one, other = (asking.score(checkpoint, [item])[0] for item in items)
        np.testing.assert_array_equal(one, other)


def test_videos_of_other_lengths_have_batches_of_their_own(served: dict[str, ServedModel]) -> None:
    checkpoint = served["blip"].checkpoints[Task.MATCH]
    prepared = checkpoint.heads.prepare(PairInput(TEXTS[0]))
    shapes = {replace(prepared, features=video(checkpoint, *frames(0)[:number])).shape for number in (1, 2, 8)}
    assert len(shapes) == 3
