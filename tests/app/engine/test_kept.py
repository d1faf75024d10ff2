"""What heads made of images is kept while its features are, the latest first, bounded in bytes."""

from __future__ import annotations

import numpy as np
import pytest

from app.engine.kept import KeptCache
from app.metrics import Metrics
from models.outputs import Features


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def kept(metrics: Metrics) -> KeptCache:
    return KeptCache(100, metrics)


def image() -> Features:
    return np.zeros(1, np.uint8)


def made_of(kept: KeptCache, *images: Features, num_bytes: int = 40) -> None:
    for number, one in enumerate(images):
        kept.keep("heads", one, num_bytes, number)


def there(kept: KeptCache, *images: Features) -> list[bool]:
    return [kept.get("heads", one) is not None for one in images]


def test_it_is_there_for_the_same_heads_and_the_same_features(kept: KeptCache, metrics: Metrics) -> None:
    first, other = image(), image()
    kept.keep("heads", first, 40, "keys")
    found = [kept.get("heads", first), kept.get("others", first), kept.get("heads", other)]
    assert found == ["keys", None, None]
    read = metrics.registry.get_sample_value
    assert read("blip_feature_cache_kept_total", {"result": "hit"}) == 1
    assert read("blip_feature_cache_kept_total", {"result": "miss"}) == 2


def test_the_latest_stay(kept: KeptCache) -> None:
    a, b, c = image(), image(), image()
    made_of(kept, a, b, c)
    assert kept.bytes == 80
    assert there(kept, a, b, c) == [False, True, True]


def test_what_was_asked_for_again_outlasts_what_never_was(kept: KeptCache) -> None:
    known, *new = (image() for _ in range(3))
    made_of(kept, known)
    there(kept, known)
    made_of(kept, *new)
    assert there(kept, known, *new) == [True, False, True]


def test_but_not_for_ever(kept: KeptCache) -> None:
    known, *new = (image() for _ in range(4))
    made_of(kept, known)
    there(kept, known)
    made_of(kept, *new)
    assert there(kept, known, *new) == [False, False, True, True]


def test_but_not_what_was_asked_for_later(kept: KeptCache) -> None:
    a, b, c = image(), image(), image()
    made_of(kept, a, b)
    there(kept, a, b)
    there(kept, a)
    made_of(kept, c)
    assert there(kept, a, b, c) == [True, False, True]


def test_what_is_too_large_takes_no_room(kept: KeptCache) -> None:
    a, large = image(), image()
    made_of(kept, a)
    kept.keep("heads", large, 101, "large")
    assert there(kept, a, large) == [True, False]


def test_it_goes_with_its_features(kept: KeptCache) -> None:
    gone, a, b = image(), image(), image()
    made_of(kept, gone, a)
    there(kept, gone)
    del gone
    made_of(kept, b)
    assert there(kept, a, b) == [True, True]
    assert kept.bytes == 80


def test_made_again_it_counts_once(kept: KeptCache) -> None:
    a = image()
    made_of(kept, a, a)
    assert kept.bytes == 40
