"""Each method, over the service and its fakes, in every form that an image can have."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blip_client import AsyncClient, ProblemError
from tests.app.support import BLUE, RED, b64, picture, run
from tests.client.support import asking


def test_caption() -> None:
    async def test() -> None:
        async with asking() as (client, lab):
            answer = await client.caption([RED, BLUE], num_captions=2, max_new_tokens=3)
            body = {"images": [b64(RED), b64(BLUE)], "num_captions": 2, "max_new_tokens": 3}
            assert answer.model_dump(exclude_unset=True) == await lab.say("/caption", body)
            assert len(answer.captions) == 2
            assert len(answer.captions[0].alternatives) == 1

    run(test)


def test_vqa() -> None:
    async def test() -> None:
        async with asking() as (client, lab):
            answer = await client.vqa(RED, "what color is it?")
            assert answer.model_dump(exclude_unset=True) == await lab.say(
                "/vqa", {"image": b64(RED), "question": "what color is it?"}
            )
            ranked = await client.vqa(RED, ["a?", "b?"], candidates=("red", "blue", "green"), top_candidates=2)
            assert [one.question for one in ranked.answers] == ["a?", "b?"]
            assert [len(one.candidates or ()) for one in ranked.answers] == [2, 2]

    run(test)


def test_match() -> None:
    async def test() -> None:
        async with asking() as (client, lab):
            answer = await client.match([RED, BLUE], ["red", "blue", "a dog"])
            body = {"images": [b64(RED), b64(BLUE)], "text": ["red", "blue", "a dog"]}
            assert answer.model_dump(exclude_unset=True) == await lab.say("/match", body)
            assert [len(row) for row in answer.scores] == [3, 3]
            alone = await client.match(RED, "red", head="itc")
            assert alone.scores[0][0].itc == answer.scores[0][0].itc
            assert alone.scores[0][0].itm is None

    run(test)


def test_embed_brings_numbers() -> None:
    async def test() -> None:
        async with asking() as (client, lab):
            answer = await client.embed([RED, BLUE], ["red"])
            told = await lab.say("/embed", {"images": [b64(RED), b64(BLUE)], "text": ["red"]})
            for mine, theirs in zip(answer.images + answer.texts, told["images"] + told["texts"], strict=True):
                assert mine.embedding == pytest.approx(theirs["embedding"])
                assert mine.vectors == [mine.embedding]
            assert (await client.embed(text="red")).texts == answer.texts

    run(test)


def test_classify() -> None:
    async def test() -> None:
        async with asking() as (client, lab):
            answer = await client.classify(RED, ["red", "blue"], top_k=1)
            body = {"image": b64(RED), "label": ["red", "blue"], "top_k": 1}
            assert answer.model_dump(exclude_unset=True) == await lab.say("/classify", body)

    run(test)


def test_rerank_both_ways(tmp_path: Path) -> None:
    async def test() -> None:
        async with asking() as (client, _):
            (path := tmp_path / "red.png").write_bytes(RED)
            texts = await client.rerank(path, ["red", "a dog"], return_documents=True)
            assert {(one.index, str(one.document)) for one in texts.results} == {
                (0, "{'text': 'red'}"),
                (1, "{'text': 'a dog'}"),
            }
            images = await client.rerank("red", [{"image": str(path)}, BLUE, picture("green")], top_n=2)
            assert len(images.results) == 2
            assert images.results[0].blip.itm == images.results[0].relevance_score

    run(test)


def test_capfilt() -> None:
    async def test() -> None:
        async with asking() as (client, _):
            answer = await client.capfilt([RED, BLUE], [["red", "a dog"], "blue"], seed=1, threshold=0)
            sources = [[text.source for text in image.texts] for image in answer.images]
            assert sources == [["web", "web", "synthetic"], ["web", "synthetic"]]
            assert all(text.kept for image in answer.images for text in image.texts)

    run(test)


def test_localize_and_models() -> None:
    async def test() -> None:
        async with asking() as (client, lab):
            answer = await client.localize(RED, "red", tokens=True)
            assert answer.model_dump(exclude_unset=True) == await lab.say(
                "/localize", {"image": b64(RED), "text": "red", "tokens": True}
            )
            models = await client.models()
            assert models.limits["max_items"] == lab.service.settings.max_items
            assert answer.model in {one.name for one in models.models}

    run(test)


def forms(folder: Path) -> Iterable[Any]:
    (path := folder / "red.png").write_bytes(RED)
    yield path
    yield str(path)
    yield RED
    yield bytearray(RED)
    yield f"data:image/png;base64,{base64.b64encode(RED).decode()}"
    yield Image.open(io.BytesIO(RED))


def test_every_form_of_an_image_is_the_same_image(tmp_path: Path) -> None:
    async def test() -> None:
        async with asking() as (client, _):
            answers = [await client.caption(form) for form in forms(tmp_path)]
            together = await client.caption(forms(tmp_path))
            assert [answers[0].captions[0]] * 6 == [one.captions[0] for one in answers] == together.captions

    run(test)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "F", "I", "PA", "RGBa"])
def test_pillow_images_of_every_mode(mode: str) -> None:
    async def test() -> None:
        async with asking() as (client, _):
            assert (await client.caption(picture(0, mode=mode))).captions[0].text

    run(test)


def test_a_url_is_the_services_to_fetch() -> None:
    async def test() -> None:
        async with asking() as (client, _):
            with pytest.raises(ProblemError, match="422 /errors/image-url"):
                await client.caption("https://cdn.example/a.jpg")

    run(test)


def test_what_is_no_image_is_told(tmp_path: Path) -> None:
    async def test() -> None:
        async with asking() as (client, _):
            with pytest.raises(FileNotFoundError):
                await client.caption(tmp_path / "none.png")
            with pytest.raises(TypeError, match="not int"):
                await client.caption([3])  # type: ignore[list-item]

    run(test)


def test_a_problem_has_its_parts() -> None:
    async def test() -> None:
        async with asking() as (client, _):
            with pytest.raises(ProblemError) as caught:
                await client.caption(b"no picture")
            problem = caught.value
            assert (problem.status, problem.type) == (415, "/errors/unsupported-media")
            assert problem.request_id
            assert problem.retry_after is None
            assert str(problem) == f"415 {problem.type}: {problem.detail} (request {problem.request_id})"

    run(test)


def test_a_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with asking(api_keys="secret") as (client, lab):
            with pytest.raises(ProblemError, match="401"):
                await client.caption(RED)
            monkeypatch.setenv("BLIP_API_KEY", "secret")
            async with AsyncClient(transport=client._http._transport) as other:
                assert (await other.caption(RED)).captions
            assert lab.service.settings.api_keys

    run(test)
