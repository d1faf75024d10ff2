"""BLIP, CLIP, CLIPSeg and OWL in one process: each answers as alone, whatever the others are asked meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests import golden
from tests.app.support import Asking, asking
from tests.library.checkpoints import write_clip
from tests.library.lab import IMAGES
from tests.library.regions import write_clipseg, write_owlv2

CATALOG = """[profiles]
mixed = ["blip", "clip", "clipseg", "owl"]
[models.blip]
family = "blip"
caption = {{ checkpoint = "{golden}/caption" }}
vqa = {{ checkpoint = "{golden}/vqa" }}
match = {{ checkpoint = "{golden}/retrieval" }}
[models.clip]
family = "clip"
match = {{ checkpoint = "tiny" }}
[models.clipseg]
family = "clipseg"
segment = {{ checkpoint = "clipseg" }}
[models.owl]
family = "owlv2"
detect = {{ checkpoint = "owl" }}
"""
LABELS = [f"red dog {number}" for number in range(400)]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    folder = tmp_path_factory.mktemp("mixed")
    write_clip(folder / "tiny")
    write_clipseg(folder / "clipseg")
    write_owlv2(folder / "owl")
    (folder / "catalog.toml").write_text(CATALOG.format(golden=golden.BLIP / "checkpoints"))
    with asking("mixed", folder / "catalog.toml") as service:
        yield service


def requests() -> list[tuple[str, dict[str, Any]]]:
    """Of all models by turns, over the same pictures."""
    every: list[tuple[str, dict[str, Any]]] = []
    for number, image in enumerate(IMAGES):
        text = [f"a red dog {number}", "x", "a blue circle to the left of a green rectangle"]
        every += [
            ("/caption", {"model": "blip", "image": image}),
            ("/embed", {"model": "clip", "image": image, "text": text}),
            ("/vqa", {"model": "blip", "image": image, "question": text}),
            ("/match", {"model": "clip", "image": image, "text": text}),
            ("/match", {"model": "blip", "image": image, "text": text}),
            ("/classify", {"model": "clip", "image": image, "label": text}),
            ("/segment", {"image": image, "text": text[:2]}),
            ("/embed", {"model": "blip", "image": image, "text": text}),
            ("/detect", {"image": image, "text": text[:2], "threshold": 0}),
            ("/detect", {"image": image, "example": IMAGES[0], "threshold": 0}),
        ]
    return every


def flat(answer: Any) -> list[Any]:
    """Its numbers and words, in order."""
    if isinstance(answer, dict | list):
        parts = answer.values() if isinstance(answer, dict) else answer
        return [one for part in parts for one in flat(part)]
    return [answer]


def test_mixed_load_is_answered_as_each_alone(mixed: Asking) -> None:
    alone = [mixed.ask(path, [body])[0] for path, body in requests()]
    together = mixed.side_by_side(requests() * 2)
    for expected, answer in zip(alone * 2, together, strict=True):
        for one, other in zip(flat(expected), flat(answer), strict=True):
            assert other == (pytest.approx(one, abs=1e-4, rel=1e-5) if isinstance(one, float) else one)


def test_none_starves(mixed: Asking) -> None:
    """A request of hundreds of texts to one, and short ones to the others that come after it."""
    ended: list[str] = []
    long = ("/classify", {"model": "clip", "images": IMAGES, "label": LABELS, "template": ["{}", "a {}", "the {}"]})
    short = [("/match", {"model": "blip", "image": IMAGES[0], "text": f"a dog {number}"}) for number in range(4)]
    short += [(path, {"image": IMAGES[0], "text": "a dog"}) for path in ("/segment", "/detect")]
    mixed.side_by_side([long, *short], ended.append)
    assert sorted(ended) == ["/classify", "/detect"] + ["/match"] * 4 + ["/segment"]
    assert ended[-1] == "/classify"


def test_metrics_tell_them_apart(mixed: Asking) -> None:
    told = mixed.text("/metrics")
    asked = (("blip", "caption"), ("blip", "match"), ("clip", "match"), ("clip", "embed"))
    for model, task in (*asked, ("clipseg", "segment"), ("owl", "detect")):
        assert f'blip_requests_total{{code="200",model="{model}",task="{task}"}}' in told
    assert 'family="clip"' in told
    assert 'family="blip"' in told
    units = {
        line.split('unit="')[1].split('"')[0] for line in told.splitlines() if line.startswith("blip_batch_size_c")
    }
    assert len([unit for unit in units if unit.startswith("tower-")]) == 6
