"""The clients that people have, against the live process: OpenAI's for Python and JavaScript, LangChain's, and Hugging
Face's. What they show is what the native endpoints answer."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from huggingface_hub import InferenceClient
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import AsyncOpenAI, OpenAI

from bench.service import running_service
from tests.app.support import b64
from tests.operation.conftest import tool
from tests.operation.support import EXAMPLE

KEY = "secret"
HEADERS = {"authorization": f"Bearer {KEY}"}
COLOUR = "what color is the circle?"
CAPTION = "a blue circle to the left of a green rectangle"
URI = f"data:image/png;base64,{b64(EXAMPLE)}"
MODELS = ("demo", "demo-blip2")
JAVASCRIPT = Path(__file__).parent / "clients" / "openai.mjs"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_service(profile="demo-shapes", dtype="fp32", api_keys=KEY) as service:
        yield service.url


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def native(url: str, path: str, **fields: Any) -> Any:
    return httpx.post(f"{url}{path}", json={"image": b64(EXAMPLE), **fields}, headers=HEADERS).raise_for_status().json()


def message(text: str | None = None) -> Any:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": URI}}]
    return {"role": "user", "content": [*([{"type": "text", "text": text}] if text else []), *parts]}


# --- Python ---


def test_models(client: OpenAI) -> None:
    ids = [model.id for model in client.models.list()]
    assert ids == [f"{name}{task}" for name in MODELS for task in ("", ":caption", ":vqa")]
    assert client.models.retrieve("demo:vqa").owned_by == "blip-serve"


@pytest.mark.parametrize("model", MODELS)
def test_captions_and_answers_are_the_native_ones(client: OpenAI, url: str, model: str) -> None:
    caption = native(url, "/caption", model=model)["captions"][0]
    told = client.chat.completions.create(model=model, messages=[message("Describe it.")])
    assert told.choices[0].message.content == caption["text"] == CAPTION
    assert told.choices[0].model_extra is not None
    assert told.choices[0].model_extra["blip"] == {"task": "caption", "confidence": caption["confidence"]}
    answer = native(url, "/vqa", model=model, question=COLOUR)["answers"][0]
    told = client.chat.completions.create(model=model, messages=[message(COLOUR)], max_tokens=4096, user="me", seed=1)
    assert told.choices[0].message.content == answer["answer"] == "blue"
    assert told.choices[0].finish_reason == "stop"
    assert told.usage is not None
    assert told.usage.total_tokens == told.usage.prompt_tokens + told.usage.completion_tokens
    ranked = client.chat.completions.create(
        model=model, messages=[message(COLOUR)], extra_body={"candidates": ["red", "blue"]}
    )
    assert ranked.choices[0].message.content == "blue"


SAMPLED: dict[str, Any] = {"temperature": 1.5, "seed": 11}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("text", [None, COLOUR])
@pytest.mark.parametrize(
    "options",
    [{"extra_body": {"num_beams": 1}}, SAMPLED, {**SAMPLED, "n": 3}, {}],
    ids=["greedy", "sampled", "three", "beams"],
)
def test_a_stream_says_what_an_answer_at_once_does(
    client: OpenAI, model: str, text: str | None, options: dict[str, Any], figure: Callable[[str], None]
) -> None:
    asked: dict[str, Any] = {"model": model, "messages": [message(text)], **options}
    whole = client.chat.completions.create(**asked)
    told = [""] * options.get("n", 1)
    pieces, last = 0, None
    for chunk in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        last = chunk
        for choice in chunk.choices:
            told[choice.index] += choice.delta.content or ""
            pieces += bool(choice.delta.content)
    assert told == [choice.message.content for choice in whole.choices]
    assert last is not None
    assert last.usage == whole.usage
    if text is None and options:
        assert pieces > 3 * len(told)  # word by word
    if not options:
        assert pieces == 1
    figure(f"stream {model} {text or 'caption'} {options}: {pieces} pieces, {told}")


def test_a_dialogue(client: OpenAI, url: str) -> None:
    history = [{"question": "what is to the left of the green rectangle?", "answer": "blue circle"}]
    last = "and where is that one?"
    expected = native(url, "/vqa", model="demo-blip2", question=last, history=history)["answers"][0]
    messages: Any = [
        {"role": "system", "content": "You are helpful."},
        message(history[0]["question"]),
        {"role": "assistant", "content": history[0]["answer"]},
        {"role": "user", "content": last},
    ]
    told = client.chat.completions.create(model="demo-blip2", messages=messages).choices[0]
    assert told.message.content == expected["answer"]
    assert told.model_extra is not None
    assert told.model_extra["blip"]["history_used"] == expected["history_used"] == 1
    alone = client.chat.completions.create(model="demo", messages=messages).choices[0]
    assert alone.model_extra is not None
    assert "history_used" not in alone.model_extra["blip"]


def test_asynchronous(url: str) -> None:
    """Many at once, streams among them: each the same as alone."""

    async def test() -> None:
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY) as client:

            async def at_once(seed: int) -> str:
                told = await client.chat.completions.create(
                    model=MODELS[seed % 2], messages=[message()], temperature=1.5, seed=seed
                )
                return told.choices[0].message.content or ""

            async def streamed(seed: int) -> str:
                stream = await client.chat.completions.create(
                    model=MODELS[seed % 2], messages=[message()], temperature=1.5, seed=seed, stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            alone = [await at_once(seed) for seed in range(16)]
            assert await asyncio.gather(*map(streamed, range(16))) == alone
            assert len(set(alone)) > 3

    asyncio.run(test())


def test_a_stream_that_is_closed_leaves_nothing_behind(client: OpenAI, url: str) -> None:
    stream = client.chat.completions.create(
        model="demo",
        messages=[message()],
        stream=True,
        extra_body={"num_beams": 1, "min_new_tokens": 40},
        max_tokens=40,
    )
    next(iter(stream))
    stream.close()
    while True:
        metrics = httpx.get(f"{url}/metrics", headers=HEADERS).text
        if "blip_inflight_requests 0.0" in metrics:
            return


def test_embeddings(client: OpenAI, url: str) -> None:
    """The client asks for base64 by default."""
    texts = [CAPTION, "a red triangle"]
    for model in MODELS:
        expected = [one["embedding"] for one in native(url, "/embed", model=model, text=texts)["texts"]]
        for options in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
            told: Any = client.embeddings.create(model=model, input=texts, **options)
            vectors = [one.embedding for one in told.data]
            if options.get("encoding_format") == "base64":
                assert all(isinstance(one, str) for one in vectors)
            else:
                np.testing.assert_allclose(vectors, expected, atol=1e-6)
    [image] = native(url, "/embed", model="demo")["images"]
    shown = client.embeddings.create(model="demo", input=[URI], extra_body={"modality": "image"}).data[0].embedding
    np.testing.assert_allclose(shown, image["embedding"], atol=1e-6)
    with pytest.raises(openai.BadRequestError, match="/embed"):
        client.embeddings.create(model="demo-blip2", input=[URI], extra_body={"modality": "image"})


def test_responses(client: OpenAI) -> None:
    content: Any = [{"type": "input_text", "text": COLOUR}, {"type": "input_image", "image_url": URI, "detail": "low"}]
    told = client.responses.create(model="demo", input=[{"role": "user", "content": content}], max_output_tokens=512)
    assert (told.output_text, told.status) == ("blue", "completed")
    with pytest.raises(openai.BadRequestError, match="stream"):
        client.responses.create(model="demo", input=[{"role": "user", "content": content}], stream=True)


def test_errors_are_the_clients_own_exceptions(client: OpenAI, url: str) -> None:
    create: Any = client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as unknown:
        create(model="gpt-4o", messages=[message()])
    assert (unknown.value.code, unknown.value.type) == ("model_not_found", "not_found_error")
    with pytest.raises(openai.BadRequestError, match="no image"):
        create(model="demo", messages=[{"role": "user", "content": "Make a title"}])
    with pytest.raises(openai.BadRequestError) as tools:
        create(model="demo", messages=[message()], tools=[{"type": "function", "function": {"name": "a"}}])
    assert tools.value.param == "tools"
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        create(model="demo", messages=[message()], max_tokens=0, stream=True)
    with pytest.raises(openai.AuthenticationError) as denied:
        OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0).models.list()
    assert denied.value.code == "invalid_api_key"


def test_a_full_service_is_asked_again(figure: Callable[[str], None]) -> None:
    """429 with Retry-After: the client waits and comes back; without retries it raises."""

    async def test(url: str) -> None:
        async def ask(client: AsyncOpenAI, number: int) -> str | None:
            told = await client.chat.completions.create(
                model="demo", messages=[message()], extra_body={"num_beams": 1 + number % 8}
            )
            return told.choices[0].message.content

        async with AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as hasty:
            outcomes = await asyncio.gather(*(ask(hasty, number) for number in range(16)), return_exceptions=True)
            refused = [one for one in outcomes if isinstance(one, openai.RateLimitError)]
            assert refused
            assert all(one.response.headers["retry-after"].isdigit() for one in refused)
            assert {one.code for one in refused} == {"queue_full"}
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=20) as patient:
            answers = await asyncio.gather(*(ask(patient, number) for number in range(16)))
            assert all(answers)
        figure(f"16 requests at once into a queue of 2: {len(refused)} refused without retries, 0 with")

    with running_service(dtype="fp32", api_keys=KEY, max_queue_items=2) as service:
        asyncio.run(test(service.url))


# --- LangChain ---


PARTS: tuple[dict[str, Any], ...] = (
    {"type": "image_url", "image_url": {"url": URI}},
    {"type": "image", "source_type": "base64", "data": b64(EXAMPLE), "mime_type": "image/png"},
    {"type": "image", "base64": b64(EXAMPLE), "mime_type": "image/png"},
)


def asked(part: dict[str, Any]) -> HumanMessage:
    return HumanMessage([{"type": "text", "text": COLOUR}, part])


def test_langchains_chat(url: str) -> None:
    last = "and where is that one?"
    history = [{"question": COLOUR, "answer": "blue"}]
    [expected] = native(url, "/vqa", model="demo-blip2", question=last, history=history)["answers"]
    with httpx.Client() as http:
        chat = ChatOpenAI(base_url=f"{url}/v1", api_key=KEY, model="demo-blip2", max_retries=0, http_client=http)
        for part in PARTS:
            assert chat.invoke([SystemMessage("Be brief."), asked(part)]).text == "blue"
            assert "".join(chunk.text for chunk in chat.stream([asked(part)])) == "blue"
            more = chat.invoke([asked(part), AIMessage("blue"), HumanMessage(last)])
            assert more.text == expected["answer"]
        greedy = chat.bind(extra_body={"num_beams": 1})
        words = [chunk.text for chunk in greedy.stream([HumanMessage([PARTS[0]])]) if chunk.text]
        assert "".join(words) == CAPTION
        assert len(words) > 3


def test_langchains_chat_asynchronously(url: str) -> None:
    async def test() -> None:
        async with httpx.AsyncClient() as http:
            chat = ChatOpenAI(base_url=f"{url}/v1", api_key=KEY, model="demo", max_retries=0, http_async_client=http)
            told = await asyncio.gather(*(chat.ainvoke([asked(part)]) for part in PARTS))
            assert [one.text for one in told] == ["blue"] * len(PARTS)
            assert "".join([chunk.text async for chunk in chat.astream([asked(PARTS[0])])]) == "blue"

    asyncio.run(test())


def test_langchains_embeddings(url: str) -> None:
    with httpx.Client() as http:
        own: dict[str, Any] = {"base_url": f"{url}/v1", "api_key": KEY, "model": "demo", "http_client": http}
        told = OpenAIEmbeddings(**own, check_embedding_ctx_length=False).embed_documents([CAPTION])
    expected = native(url, "/embed", model="demo", text=CAPTION)["texts"][0]["embedding"]
    np.testing.assert_allclose(told[0], expected, atol=1e-6)
    ids = {"model": "demo", "input": [[1, 2, 3]]}
    refused = httpx.post(f"{url}/v1/embeddings", json=ids, headers=HEADERS)
    assert "check_embedding_ctx_length=False" in refused.json()["error"]["message"]


# --- JavaScript ---


def test_javascript(url: str, root: Path) -> None:
    """Node looks for the package beside the script."""
    folder = root / "build" / "tools"
    assert (folder / "node_modules" / "openai").is_dir(), "npm install --no-save --prefix build/tools openai"
    script = folder / JAVASCRIPT.name
    script.write_text(JAVASCRIPT.read_text())
    done = subprocess.run(
        [tool("node"), script, f"{url}/v1", KEY, URI], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["models"][0] == "demo"
    assert told["caption"] == told["streamed"] == CAPTION
    assert told["pieces"] > 3
    assert told["answer"] == told["response"] == "blue"
    expected = native(url, "/embed", model="demo", text=CAPTION)["texts"][0]["embedding"]
    np.testing.assert_allclose(told["embedding"], expected, atol=1e-6)
    assert told["error"] == {"status": 404, "code": "model_not_found", "type": "not_found_error"}


# --- Hugging Face ---


def test_zero_shot_classification_of_the_hubs_client(url: str) -> None:
    labels = ["blue circle", "red triangle", "green rectangle"]
    hub = InferenceClient(model=f"{url}/classify", token=KEY)
    told = hub.zero_shot_image_classification(EXAMPLE, candidate_labels=labels, hypothesis_template="a {}")
    [expected] = native(url, "/classify", label=labels, template="a {}")["classes"]
    assert [one.label for one in told] == [one["label"] for one in expected]
    assert [one.score for one in told] == pytest.approx([one["score"] for one in expected])
