"""OpenAI's door: the same words and numbers as the native endpoints, in the shapes that its clients read."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import TypeAdapter

from app.service import Phase
from app.wire.openai.answers import Completion, EmbeddingsAnswer, ErrorAnswer, ModelEntry, ModelList, ResponseAnswer
from models.base import Capabilities
from models.fake.answers import DIMENSIONS
from models.inputs import CaptionInput, QuestionInput, RankInput, Sampling, Turn
from tests.app.conftest import Shared
from tests.app.support import BLUE, GREEN, JSON_ONLY, RED, b64, lab, run

CHAT, EMBEDDINGS, RESPONSES = "/v1/chat/completions", "/v1/embeddings", "/v1/responses"
COLOUR = "what color is it?"
INVALID = ("invalid_request_error",)


def uri(data: bytes = RED) -> str:
    return f"data:image/png;base64,{b64(data)}"


def shown(text: str | None = None, image: bytes = RED, role: str = "user") -> dict[str, Any]:
    """A message with an image, and a text beside it."""
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": uri(image), "detail": "low"}}]
    return {"role": role, "content": parts if text is None else [{"type": "text", "text": text}, *parts]}


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def talk(text: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"model": "fake", "messages": [shown(text)], **fields}


def checked(response: httpx.Response, answer: Any) -> Any:
    assert response.status_code == 200, response.text
    body = response.json()
    assert TypeAdapter(answer).validate_python(body, strict=True) == body
    return body


def refused(response: httpx.Response, status: int, kind: str, *words: str) -> Any:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = checked(httpx.Response(200, json=response.json()), ErrorAnswer)["error"]
    assert error["type"] == kind
    for word in words:
        assert word in error["message"]
    return error


# --- models ---


def test_models_and_the_tasks_that_may_stand_behind_them(shared: Shared) -> None:
    listed = checked(shared.get("/v1/models"), ModelList)
    assert [one["id"] for one in listed["data"]] == ["fake", "fake:caption", "fake:vqa"]
    assert checked(shared.get("/v1/models/fake:vqa"), ModelEntry) == listed["data"][2]
    error = refused(shared.get("/v1/models/gpt-4o"), 404, "not_found_error", "fake:caption")
    assert error["code"] == "model_not_found"


# --- the same answers ---


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 1},
        {"n": 3},
        {"max_tokens": 2},
        {"min_new_tokens": 6},
        {"temperature": 0.7, "seed": 5, "top_p": 0.5, "n": 2},
    ],
)
def test_a_caption_is_that_of_the_native_endpoint(shared: Shared, options: dict[str, Any]) -> None:
    native = {"n": "num_captions", "max_tokens": "max_new_tokens"}
    asked = {native.get(name, name): value for name, value in options.items()}
    asked |= {"sample": True} if "temperature" in options else {}
    [caption] = shared.ask("/caption", **asked).json()["captions"]
    answer = checked(shared.post(CHAT, json=talk(**options)), Completion)
    expected = [caption, *caption["alternatives"]]
    assert [one["message"]["content"] for one in answer["choices"]] == [one["text"] for one in expected]
    assert [one["blip"]["confidence"] for one in answer["choices"]] == [one["confidence"] for one in expected]
    assert [one["index"] for one in answer["choices"]] == list(range(options.get("n", 1)))
    assert {one["blip"]["task"] for one in answer["choices"]} == {"caption"}
    assert answer["model"] == "fake"


def test_an_answer_is_that_of_the_native_endpoint(shared: Shared) -> None:
    [native] = shared.ask("/vqa", question=COLOUR).json()["answers"]
    answer = checked(shared.post(CHAT, json=talk(COLOUR)), Completion)
    [choice] = answer["choices"]
    assert (choice["message"]["content"], choice["blip"]["confidence"]) == (native["answer"], native["confidence"])
    assert choice["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}


def test_several_answers_to_one_question(shared: Shared) -> None:
    answer = checked(shared.post(CHAT, json=talk(COLOUR, n=3)), Completion)
    assert len({one["message"]["content"] for one in answer["choices"]}) == 3


def test_ranked_candidates(shared: Shared) -> None:
    candidates = ["blue", "red", "green"]
    [native] = shared.ask("/vqa", question=COLOUR, candidates=candidates).json()["answers"]
    body = talk(COLOUR, candidates=candidates, max_tokens=4096, temperature=1)
    [choice] = checked(shared.post(CHAT, json=body), Completion)["choices"]
    assert choice["message"]["content"] == native["answer"] == "red"
    assert choice["blip"]["candidates"] == native["candidates"]
    refused(shared.post(CHAT, json=talk(candidates=candidates)), 400, "invalid_request_error", "only with a question")
    refused(shared.post(CHAT, json=talk(COLOUR, candidates=["a"])), 400, "invalid_request_error", "candidates")


def test_where_an_answer_ends(shared: Shared) -> None:
    def end(**fields: Any) -> tuple[str, str]:
        [choice] = shared.post(CHAT, json=talk(**fields)).json()["choices"]
        return choice["message"]["content"], choice["finish_reason"]

    assert end() == ("a red picture", "stop")
    assert end(max_tokens=2) == ("a red", "length")
    assert end(max_completion_tokens=2, max_tokens=4096) == ("a red", "length")
    assert end(stop=" picture") == ("a red", "stop")
    assert end(stop=["nothing", "red"]) == ("a ", "stop")
    assert end(stop="red", max_tokens=2) == ("a ", "stop")


def payload(shared: Shared, **body: Any) -> Any:
    """What the heads were asked."""
    shared.lab.heads.calls.clear()
    assert shared.post(CHAT, json=body).status_code == 200
    return shared.lab.heads.calls[0].payloads[0]


def test_what_clients_send_without_meaning_it(shared: Shared) -> None:
    """Ignored, clipped, or equal to what is done anyway."""
    noise = {
        "user": "me",
        "store": False,
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logprobs": False,
        "response_format": {"type": "text"},
        "parallel_tool_calls": True,
        "tools": [],
        "tool_choice": "none",
        "stop": None,
        "stream": False,
        "n": None,
        "max_tokens": 4096,
        "temperature": 0,
        "top_p": 1,
        "seed": 7,
        "what_came_last_month": {"x": [1, 2]},
    }
    asked = payload(shared, **talk(), **noise)
    assert asked == CaptionInput(settings=asked.settings)
    assert (asked.settings.max_new_tokens, asked.settings.sampling) == (256, None)


def test_sampling(shared: Shared) -> None:
    assert payload(shared, **talk(temperature=0.7)).settings.sampling == Sampling(temperature=0.7)
    drawn = payload(shared, **talk(temperature=1e-9, top_p=0, seed=-1)).settings.sampling
    assert drawn == Sampling(top_p=1e-6, temperature=0.01, seed=2**63 - 1)


# --- which task, which image, which turns ---


@pytest.mark.parametrize(
    ("model", "text", "task"),
    [
        ("fake", None, "caption"),
        ("fake", "", "caption"),
        ("fake", "Create a caption with exactly one sentence.", "caption"),
        ("fake", "can you describe this picture", "caption"),
        ("fake", "Whatever this is", "caption"),
        ("fake", "can you see red?", "vqa"),
        ("fake", "What is this", "vqa"),
        ("fake", "is it red", "vqa"),
        ("fake:vqa", "the color", "vqa"),
        ("fake:caption", COLOUR, "caption"),
    ],
)
def test_the_table_of_tasks(shared: Shared, model: str, text: str | None, task: str) -> None:
    asked = payload(shared, model=model, messages=[shown(text)])
    if task == "caption":
        assert asked.prompt is None  # the text is not how the caption begins
    else:
        assert asked.question == text
    answer = shared.post(CHAT, json={"model": model, "messages": [shown(text)]}).json()
    assert (answer["model"], answer["choices"][0]["blip"]["task"]) == (model, task)


def test_a_question_is_needed_where_the_model_name_asks_for_one(shared: Shared) -> None:
    body = {"model": "fake:vqa", "messages": [shown()]}
    refused(shared.post(CHAT, json=body), 400, "invalid_request_error", "a question is needed")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": uri(BLUE)}},
        {"type": "image_url", "image_url": b64(BLUE)},
        {"type": "input_image", "image_url": uri(BLUE)},
        {"type": "image", "source_type": "base64", "data": b64(BLUE), "mime_type": "image/png"},
    ],
)
def test_an_image_in_every_form(shared: Shared, part: dict[str, Any]) -> None:
    body = {"model": "fake", "messages": [{"role": "user", "content": [part]}]}
    assert shared.post(CHAT, json=body).json()["choices"][0]["message"]["content"] == "a blue picture"


def test_the_newest_image_is_the_subject(shared: Shared) -> None:
    turns = [shown(COLOUR), said("assistant", "red"), shown(image=GREEN), said("assistant", "a green picture")]
    body = {"model": "fake", "messages": [*turns, said("user", COLOUR)]}
    assert shared.post(CHAT, json=body).json()["choices"][0]["message"]["content"] == "green"


def test_turns_about_the_image_are_history_where_the_model_takes_one() -> None:
    messages = [
        said("system", "You are a helpful assistant."),
        shown("is it blue?", BLUE),
        said("assistant", "yes"),
        shown(),  # another image: what was said before is not about it
        said("assistant", "a red picture"),
        said("user", "is it red?"),
        {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
        said("user", "really?"),
        said("user", COLOUR),
    ]

    async def test() -> None:
        async with lab(Capabilities(history=True)) as there:
            answer = await there.say(CHAT, {"model": "fake", "messages": messages})
            assert there.heads.calls[0].payloads == [QuestionInput(COLOUR, (Turn("is it red?", "yes"),))]
            assert answer["choices"][0]["blip"]["history_used"] == 1
            many = [shown(), *[said("user", "is it?"), said("assistant", "no")] * 100, said("user", COLOUR)]
            there.heads.calls.clear()
            await there.say(CHAT, {"model": "fake", "messages": many})
            assert len(there.heads.calls[0].payloads[0].history) == 64
        async with lab() as there:
            answer = await there.say(CHAT, {"model": "fake", "messages": messages})
            assert there.heads.calls[0].payloads == [QuestionInput(COLOUR)]
            assert "history_used" not in answer["choices"][0]["blip"]

    run(test)


# --- as generous as every endpoint ---


@pytest.mark.parametrize(
    "written",
    [
        b64(RED),
        f" {b64(RED)}\n",
        f"data:application/octet-stream;base64,{b64(RED)}",
        f"\n DATA:image/png;charset=x;Base64,{b64(RED)}",
        f"data:image/png;base64,{b64(RED).replace('+', '%2B').replace('/', '%2f').replace('=', '%3D')}",
        base64.urlsafe_b64encode(RED).decode().rstrip("="),
        base64.encodebytes(RED).decode(),
    ],
)
def test_an_image_may_be_written_in_every_way(shared: Shared, written: str) -> None:
    part = {"type": "image_url", "image_url": {"url": written}}
    asked: dict[str, dict[str, Any]] = {
        CHAT: {"messages": [{"role": "user", "content": [part]}]},
        RESPONSES: {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": written}]}]},
        EMBEDDINGS: {"input": written, "modality": "image"},
        "/rerank": {"query": "red", "documents": [{"image": written}], "score": "sum"},
    }
    for path, body in asked.items():
        told = json.dumps(body).replace(json.dumps(written), json.dumps(uri()))
        assert volatile(shared.post(path, json=body).json()) == volatile(
            shared.post(path, json=json.loads(told)).json()
        )


def volatile(answer: dict[str, Any]) -> dict[str, Any]:
    """The rest of it."""
    assert not answer.get("error"), answer
    rest = {name: value for name, value in answer.items() if name not in ("id", "created", "created_at", "usage")}
    for message in rest.get("output", ()):
        del message["id"]
    return rest


def test_what_is_absent_within_a_field_and_what_is_whole(shared: Shared) -> None:
    options = {"n": 2.0, "max_tokens": 2.0, "stop": "", "stream_options": {"include_usage": None}}
    answer = checked(shared.post(CHAT, json=talk() | options), Completion)
    assert [one["finish_reason"] for one in answer["choices"]] == ["length"] * 2
    parts = [{"type": "text", "text": ""}, {"type": "text", "text": None}, *shown()["content"]]
    turns = [{"role": "system", "content": None}, {"role": "user", "content": parts, "name": ""}]
    assert checked(shared.post(CHAT, json={"messages": turns}), Completion)["choices"][0]["blip"]["task"] == "caption"


# --- refusals ---


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"messages": [said("user", "Make a title for this chat")]}, "messages", "no image"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": [shown(), said("assistant", "a red picture")]}, "messages", "the last must be the user's"),
        ({"messages": [shown(), said("tool", "x"), said("user", "?")]}, "messages", "'tool' is not supported"),
        ({"messages": [{"role": "user", "content": shown()["content"] * 2}]}, "messages", "several"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}, *shown()["content"]]}]},
            "messages",
            "'input_audio'",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "holds no image"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}],
                    }
                ]
            },
            "messages",
            "messages: image: Images by URL are not enabled",
        ),
        ({"messages": "hello"}, "messages", "list"),
        ({}, "messages", "required"),
        (talk(tools=[{"type": "function"}]), "tools", "not supported"),
        (talk(functions=[{}]), "functions", "not supported"),
        (talk(audio={"voice": "a"}), "audio", "not supported"),
        (talk(logprobs=True), "logprobs", "not supported"),
        (talk(response_format={"type": "json_object"}), "response_format", "text"),
        (talk(frequency_penalty=0.5), "frequency_penalty", "not supported"),
        (talk(n=9), "n", "8"),
        (talk(temperature=-1), "temperature", "0"),
        (talk(max_tokens=0), "max_tokens", "1"),
        (talk(num_beams=2, n=3), "num_beams", "smaller"),
        (talk(num_beams=3, temperature=1), "num_beams", "sample"),
        (talk(stop=["a"] * 17), "stop", "at most 16"),
        (talk(n="1"), "n", "integer"),
        (talk(stream="yes"), "stream", "boolean"),
        (talk("?" * 10_001), "question.0", "10001 characters"),
        ({"messages": [said("user", "x")] * 2049}, "messages", "at most 2048"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 257}]}, None, "at most 256"),
    ],
)
def test_what_cannot_be_done_is_400_at_once(shared: Shared, body: Any, param: str | None, words: str) -> None:
    calls = len(shared.lab.heads.calls)
    error = refused(shared.post(CHAT, json={"model": "fake"} | body), 400, "invalid_request_error", words)
    assert param is None or error["param"] == param
    assert len(shared.lab.heads.calls) == calls


def test_an_error_names_the_image(shared: Shared) -> None:
    images, broken = [uri(RED), uri(RED[:-30]), "data:image/png;base64,%%%"], "input.1"
    for place, kind in ((1, "broken"), (2, "base64")):
        bad = [images[0], images[place]]
        error = refused(shared.post(EMBEDDINGS, json={"input": bad, "modality": "image"}), 400, *INVALID, kind)
        assert error["param"] == broken
        documents = [{"image": one} for one in bad]
        error = refused(shared.post("/v1/rerank", json={"query": "a", "documents": documents}), 400, *INVALID, kind)
        assert error["param"] == "documents.1"


def test_an_image_is_given_back_as_it_was_told(shared: Shared) -> None:
    """And what is no text is refused before."""
    body = {"query": "a", "documents": [{"image": uri()}], "return_documents": True}
    [result] = shared.post("/v1/rerank", json=body).json()["results"]
    assert result["document"] == {"image": uri()}
    told = json.dumps(body).replace("data:image", "data:\\ud800image")
    response = shared.post("/v1/rerank", content=told, headers={"content-type": "application/json"})
    refused(response, 400, *INVALID, "data URI")


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        (CHAT, {"messages": [shown(image=b"")]}, "messages: image"),
        (RESPONSES, {"input": [shown(image=b"")]}, "messages: image"),
        (EMBEDDINGS, {"input": [uri(), uri(b"")], "modality": "image"}, "input: 1"),
        ("/v1/rerank", {"query": {"image": ""}, "documents": ["a"]}, "query"),
        ("/v1/rerank", {"query": "a", "documents": [{"image": ""}]}, "documents: 0"),
    ],
)
def test_an_empty_image_is_told_as_such(shared: Shared, path: str, body: Any, place: str) -> None:
    """By its field, as in /caption."""
    error = refused(shared.post(path, json=body), 400, *INVALID, f"{place}: is empty")
    assert error["code"] == "invalid_input"


def test_a_broken_picture_of_a_conversation_is_told_by_its_field(shared: Shared) -> None:
    for image in (RED[:-30], b"no picture"):
        error = refused(shared.post(CHAT, json={"messages": [shown(image=image)]}), 400, *INVALID)
        assert error["param"] == "messages"


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/model", "/v1/models/", "/v1/chat/completion"])
def test_an_unknown_path_is_told_in_openais_shape(shared: Shared, path: str) -> None:
    error = refused(shared.get(path), 404, "not_found_error")
    assert error["code"] in ("unknown_route", "model_not_found")
    assert "{" not in error["message"]


@pytest.mark.parametrize("path", [path for path in JSON_ONLY if path.startswith("/v1/")])
def test_errors_have_openais_shape_on_every_path(shared: Shared, path: str) -> None:
    headers = {"content-type": "application/json"}
    assert (
        refused(shared.post(path, content=b"{", headers=headers), 400, "invalid_request_error")["code"] == "malformed"
    )
    deep = b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    refused(shared.post(path, content=deep, headers=headers), 400, "invalid_request_error", "more values")
    refused(shared.post(path, content=RED, headers={"content-type": "image/png"}), 400, "invalid_request_error")
    refused(shared.get(path), 405, "invalid_request_error")
    refused(shared.post("/v1/completions", json={}), 404, "not_found_error")
    bad = {"messages": [shown(image=RED[:-30])], "input": [uri(RED[:-30])], "query": "a"}
    bad |= {"documents": [{"image": uri(RED[:-30])}], "modality": "image"}
    if path == EMBEDDINGS:
        del bad["messages"]
    if path == RESPONSES:
        bad["input"] = [shown(image=RED[:-30])]
    refused(shared.post(path, json=bad), 400, "invalid_request_error", "broken")


def test_refusals_of_the_service_in_openais_shape() -> None:
    async def test() -> None:
        async with lab(api_keys="secret", max_body_bytes=100_000) as there:
            client = there.client
            unauthorised = await client.get("/v1/models")
            assert refused(unauthorised, 401, "authentication_error")["code"] == "invalid_api_key"
            assert unauthorised.headers["www-authenticate"] == "Bearer"
            refused(await client.post(CHAT, json=talk()), 401, "authentication_error")
            client.headers["authorization"] = "Bearer secret"
            assert (await client.get("/v1/models")).status_code == 200
            assert (await client.post(CHAT, json=talk())).status_code == 200
            refused(await client.post(CHAT, content=bytes(100_001)), 413, "invalid_request_error")
            refused(await client.post(CHAT, json=talk() | {"model": "gpt-4o"}), 404, "not_found_error", "No such model")
            there.service.phase = Phase.DRAINING
            stopping = await client.post(CHAT, json=talk())
            refused(stopping, 503, "server_error")
            assert stopping.headers["retry-after"] == "5"
        async with lab(max_queue_items=1) as there:
            there.admission._num_reserved = lambda: 1  # type: ignore[method-assign]
            full = await there.client.post(CHAT, json=talk())
            assert refused(full, 429, "rate_limit_error")["code"] == "queue_full"
            assert full.headers["retry-after"] == "1"

    run(test)


def test_metrics_count_what_a_request_turned_out_to_be() -> None:
    async def test() -> None:
        async with lab() as there:
            for body in (talk(), talk(COLOUR), talk("a title")):
                await there.say(CHAT, body)
            await there.client.post(CHAT, json=talk() | {"model": "x" * 999})
            assert there.count("requests_total", task="caption", model="fake", code="200") == 2
            assert there.count("requests_total", task="vqa", model="fake", code="200") == 1
            assert there.count("requests_total", task="caption", model="other", code="404") == 1
            for path in (CHAT, "/v1/responses"):
                await there.client.post(path, json={"messages": "a"})
            assert there.count("requests_total", task="chat", model="fake", code="400") == 2
            assert there.count("requests_total", task="caption", model="fake", code="400") == 0

    run(test)


# --- /v1/responses ---


def test_responses_in_the_plain_form(shared: Shared) -> None:
    content = [{"type": "input_text", "text": COLOUR}, {"type": "input_image", "image_url": uri(), "detail": "low"}]
    body = {
        "model": "fake",
        "instructions": "Be brief.",
        "input": [
            {"role": "system", "content": [{"type": "input_text", "text": "Describe."}]},
            {"role": "user", "type": "message", "content": content},
        ],
        "text": {"format": {"type": "text"}},
        "reasoning": {"effort": "low"},
        "max_output_tokens": 512,
        "store": True,
    }
    answer = checked(shared.post(RESPONSES, json=body), ResponseAnswer)
    assert answer["output"][0]["content"][0]["text"] == "red"
    assert (answer["status"], answer["store"], answer["blip"]["task"]) == ("completed", False, "vqa")
    assert answer["usage"]["total_tokens"] == 6
    short = checked(shared.post(RESPONSES, json={"input": [shown()], "max_output_tokens": 1}), ResponseAnswer)
    assert (short["status"], short["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert short["model"] == "fake"


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"stream": True}, "stream"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"text": {"format": {"type": "json_schema"}}}, "text"),
        ({"input": "hello"}, "no image"),
    ],
)
def test_responses_not_in_the_plain_form(shared: Shared, fields: dict[str, Any], word: str) -> None:
    refused(shared.post(RESPONSES, json={"input": [shown()]} | fields), 400, "invalid_request_error", word)


# --- /v1/embeddings ---


def test_embeddings_of_texts_are_those_of_embed(shared: Shared) -> None:
    texts = ["red", "a blue thing", "red"]
    native = [one["embedding"] for one in shared.post("/embed", json={"text": texts}).json()["texts"]]
    answer = checked(shared.post(EMBEDDINGS, json={"model": "fake", "input": texts}), EmbeddingsAnswer)
    assert [one["embedding"] for one in answer["data"]] == native
    assert [one["index"] for one in answer["data"]] == [0, 1, 2]
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    coded = shared.post(EMBEDDINGS, json={"input": "red", "encoding_format": "base64", "dimensions": DIMENSIONS}).json()
    assert np.frombuffer(base64.b64decode(coded["data"][0]["embedding"]), "<f4").tolist() == native[0]


@pytest.mark.parametrize(
    "body",
    [
        {"input": [uri(BLUE)], "modality": "image"},
        {"input": b64(BLUE), "modality": "image"},
        {"messages": [shown(image=BLUE)]},
    ],
)
def test_embeddings_of_images(shared: Shared, body: dict[str, Any]) -> None:
    [native] = shared.ask("/embed", BLUE).json()["images"]
    [one] = checked(shared.post(EMBEDDINGS, json=body), EmbeddingsAnswer)["data"]
    assert one["embedding"] == native["embedding"]


def test_more_texts_than_a_native_request_may_have(shared: Shared) -> None:
    """LangChain sends a thousand at once."""
    answer = shared.post(EMBEDDINGS, json={"input": [f"text {number}" for number in range(1000)]}).json()
    assert len(answer["data"]) == 1000


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": [1, 2, 3]}, "check_embedding_ctx_length=False"),
        ({"input": [[1, 2], [3]]}, "check_embedding_ctx_length=False"),
        ({"input": "red", "dimensions": 7}, f"has {DIMENSIONS}"),
        ({"input": []}, "empty"),
        ({"input": ["a", " "]}, "empty"),
        ({}, "one of the two"),
        ({"input": ["a"] * 1025}, "at most 1024"),
        ({"input": [uri()] * 65, "modality": "image"}, "at most 64"),
        ({"messages": [shown("and a text")]}, "one text or one image"),
        ({"messages": [shown(), shown()]}, "one message"),
        ({"input": "red", "encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_embeddings_that_cannot_be(shared: Shared, body: dict[str, Any], words: str) -> None:
    refused(shared.post(EMBEDDINGS, json=body), 400, "invalid_request_error", words)


def test_an_image_with_several_vectors_needs_pooling() -> None:
    async def test() -> None:
        async with lab(Capabilities(pooling=("none", "mean"))) as there:
            body = {"input": [uri()], "modality": "image"}
            refused(await there.client.post(EMBEDDINGS, json=body), 400, "invalid_request_error", "/embed")
            [one] = (await there.say(EMBEDDINGS, body | {"pooling": "mean"}))["data"]
            native = (await there.ask("/embed", pooling="mean")).json()["images"][0]["embedding"]
            assert one["embedding"] == native
            assert len((await there.say(EMBEDDINGS, {"input": "red", "pooling": "mean"}))["data"]) == 1

    run(test)


def test_rank_mode_asks_what_the_native_endpoint_asks(shared: Shared) -> None:
    assert payload(shared, **talk(COLOUR, candidates=["a", "b"])) == RankInput(COLOUR, ("a", "b"), 2)
