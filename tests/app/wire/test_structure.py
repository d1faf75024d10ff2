"""What a JSON body may cost is counted before it is parsed."""

from __future__ import annotations

import json

import httpx
import pytest

from app.wire.structure import CHUNK_BYTES, has_too_much_structure
from tests.app.conftest import Shared
from tests.app.support import RED, b64, kind

JSON = {"content-type": "application/json"}


def counted(body: bytes, structure: int) -> bool:
    """Whether exactly so much structure is found."""
    return not has_too_much_structure(body, structure) and has_too_much_structure(body, structure - 1)


@pytest.mark.parametrize(
    ("value", "structure"),
    [
        ([1, 2, 3], 3),
        ({"a": 1, "b": [2]}, 5),
        ("a, [b] {c: d}", 0),
        (["\\"], 1),
        (["\\\\", ",,,"], 2),
        (['"', '\\"', ',"[{:'], 3),
        ({"\\": '"\\"'}, 2),
    ],
)
@pytest.mark.parametrize("padding", [0, 1, *(CHUNK_BYTES - number for number in (30, 9, 8, 7, 6)), 3 * CHUNK_BYTES])
def test_structure_outside_of_strings_counts(value: object, structure: int, padding: int) -> None:
    """Wherever the border between two chunks falls."""
    body = b" " * padding + json.dumps(value).encode()
    if structure:
        assert counted(body, structure)
    assert not has_too_much_structure(body, structure)


@pytest.mark.parametrize("border", range(-6, 7))
def test_an_escape_may_lie_on_the_border_of_two_chunks(border: int) -> None:
    text = "x" * (CHUNK_BYTES + border - 2)
    assert counted(json.dumps([text + '\\"', ",", "\\\\", 1]).encode(), 4)


@pytest.mark.parametrize("value", ["[]", "{}", "1e9", '""', "null"])
@pytest.mark.parametrize("field", ["candidates", "images", "text", "nonsense"])
def test_a_body_of_many_small_values_is_refused_unparsed(shared: Shared, field: str, value: str) -> None:
    body = f'{{"image": "{b64(RED)}", "question": "a", "{field}": [{",".join([value] * 100_000)}]}}'
    response = shared.post("/vqa", content=body.encode(), headers=JSON)
    assert kind(response) == (400, "malformed")
    assert "more values" in response.json()["detail"]


def test_many_keys_are_refused_unparsed(shared: Shared) -> None:
    body = "{" + ",".join(f'"{number}": 1' for number in range(100_000)) + "}"
    assert kind(shared.post("/caption", content=body.encode(), headers=JSON)) == (400, "malformed")


def test_texts_full_of_commas_are_no_structure(shared: Shared) -> None:
    texts = [f"red {number} " + ",[{:" * 2400 for number in range(64)]
    response = shared.post("/match", json={"image": b64(RED), "text": texts, "head": "itc"})
    assert response.status_code == 200
    assert len(response.json()["scores"][0]) == 64


def told(response: httpx.Response) -> str:
    assert kind(response) == (422, "invalid-input")
    detail: str = response.json()["detail"]
    return detail


def test_unknown_fields_are_told_with_what_there_is(shared: Shared) -> None:
    detail = told(shared.ask("/caption", **{f"x{number}": 1 for number in range(9)}))
    assert detail.startswith("unknown field 'x0', 'x1', 'x2', 'x3', 'x4' and 4 more; there are: image, model, ")


def test_images_are_counted_before_they_are_decoded(shared: Shared) -> None:
    detail = told(shared.post("/caption", json={"images": ["!"] * 65}))
    assert detail == "image: 65 given, at most 64 allowed"


def test_candidates_are_counted_before_they_are_looked_at(shared: Shared) -> None:
    detail = told(shared.ask("/vqa", candidates=[[]] * 5000))
    assert detail == "candidates: 5000 items, at most 4096 are allowed"


def test_json_is_utf8(shared: Shared) -> None:
    body = json.dumps({"image": b64(RED)})
    assert shared.post("/caption", content=b"\xef\xbb\xbf" + body.encode(), headers=JSON).status_code == 200
    assert kind(shared.post("/caption", content=body.encode("utf-16"), headers=JSON)) == (400, "malformed")
