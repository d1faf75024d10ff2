"""A compiled tower: the same features, in batches of the sizes that were compiled."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.base import Item, Op
from models.layers.vit import ViT, ViTConfig
from models.loader import load
from models.runners import tower as tower_module
from models.runners.tower import TowerRunner
from models.weights import CheckpointError
from tests import golden


def pictures(number: int) -> list[Item]:
    return [Item(Op.ENCODE, None, torch.randn(3, 32, 32)) for _ in range(number)]


def tower() -> TowerRunner:
    torch.manual_seed(0)
    return TowerRunner("tower", ViT(ViTConfig(32, 16, 32, 1, 2, 64, 1e-6)).eval(), torch.device("cpu"))


def test_batches_are_split_into_sizes_that_were_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = list[int]()

    def recording(module: Callable[[Tensor], Tensor], dynamic: bool) -> Callable[[Tensor], Tensor]:
        assert not dynamic

        def call(pixels: Tensor) -> Tensor:
            sizes.append(len(pixels))
            return module(pixels)

        return call

    monkeypatch.setattr(torch, "compile", recording)
    plain, compiled = tower(), tower()
    compiled.compile(5, image_size=32)
    assert sizes == [1, 2, 4]
    sizes.clear()
    batch = pictures(7)
    features = compiled.encode(batch)
    assert sizes == [4, 2, 1]
    for one, other in zip(features, plain.encode(batch), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_what_was_compiled_for_other_instructions_is_not_taken_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own key leaves them out: kernels of 16 floats at a time gave wrong features where a vector has 8."""
    tags = list[str]()

    def recording(module: Callable[[Tensor], Tensor], **_: object) -> Callable[[Tensor], Tensor]:
        def call(pixels: Tensor) -> Tensor:
            tags.append(torch.compiler.config.cache_key_tag)
            return module(pixels)

        return call

    monkeypatch.setattr(torch, "compile", recording)
    for vectors in ("AVX2", "AVX512"):
        monkeypatch.setattr("models.runners.tower.torch_vectors", lambda has=vectors: has)
        tower().compile(1, image_size=32)
    assert tags == ["AVX2", "AVX512"]


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch itself
def test_a_compiled_tower_computes_the_same() -> None:
    plain, compiled = tower(), tower()
    compiled.compile(1, image_size=32)
    batch = pictures(2)
    for one, other in zip(compiled.encode(batch), plain.encode(batch), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_a_tower_that_cannot_be_compiled_stops_the_start_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler\nand a long trace")

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(CheckpointError, match=r"start without BLIP_COMPILE: no C\+\+ compiler$"):
        load("golden", catalog=golden.CATALOG, device="cpu", dtype="fp32", threads=1, compile_batches=1)


def test_a_cpu_takes_as_many_pictures_at_a_time_as_its_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, sizes, batch = tower(), list[int](), pictures(5)
    whole = runner.encode(batch)
    runner._tower.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))  # type: ignore[attr-defined]
    monkeypatch.setattr(tower_module, "PIXELS_AT_ONCE", 2 * 32 * 32)
    parts = runner.encode(batch)
    assert sizes == [2, 2, 1]
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    sizes.clear()
    monkeypatch.setattr(tower_module, "PIXELS_AT_ONCE", 1)  # a picture is larger
    runner.encode(batch)
    assert sizes == [1] * 5


def test_features_are_kept_apart_from_their_batch() -> None:
    kept = tower().encode(pictures(3))
    assert all(isinstance(one, Tensor) and one.untyped_storage().nbytes() == one.nbytes for one in kept)


def test_holes_in_the_heap_are_given_back_as_features_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back = list[None]()
    monkeypatch.setattr(tower_module, "give_back_holes", lambda: given_back.append(None))
    runner = tower()
    [features] = runner.encode(pictures(1))
    monkeypatch.setattr(tower_module, "HOLES_BYTES", 4 * features.nbytes)
    runner.encode(pictures(2))
    assert not given_back
    runner.encode(pictures(2))
    assert len(given_back) == 1
    runner.encode(pictures(3))
    assert len(given_back) == 1
