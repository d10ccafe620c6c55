from __future__ import annotations

import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from edgevl.store.tiles import TileStore


def tile(value: int = 0, side: int = 4) -> NDArray[np.uint8]:
    return np.full((side, side, 3), value, np.uint8)


def features(value: float = 0.0) -> NDArray[np.float32]:
    """Return 1000 bytes of features."""
    return np.full((25, 10), value, np.float32)


def test_the_key_is_pixels_shape_and_model() -> None:
    store = TileStore("model-a")
    assert store.key(tile(1)) == store.key(tile(1).copy())
    assert len(store.key(tile(1))) == 64
    others = {
        store.key(tile(2)),
        store.key(tile(1, side=5)),
        store.key(tile(1).reshape(2, 8, 3)),
        TileStore("model-b").key(tile(1)),
    }
    assert store.key(tile(1)) not in others
    assert len(others) == 4


def test_the_key_of_a_view_is_that_of_its_pixels() -> None:
    wide = np.random.default_rng(0).integers(0, 255, (4, 8, 3), np.uint8)
    store = TileStore("m")
    assert store.key(wide[:, 4:]) == store.key(wide[:, 4:].copy())


def test_one_changed_pixel_is_another_tile() -> None:
    changed = tile()
    changed[3, 3, 2] = 1
    store = TileStore("m")
    assert store.key(changed) != store.key(tile())


def test_what_was_put_comes_back() -> None:
    store = TileStore("m")
    assert store.get("a") is None
    store.put("a", features(1))
    store.put("a", features(2))  # the same pixels have the same features: the first stays
    found = store.get("a")
    assert found is not None
    np.testing.assert_array_equal(found, features(1))


def test_features_cannot_be_changed_by_who_gets_them() -> None:
    store = TileStore("m")
    store.put("a", features())
    found = store.get("a")
    assert found is not None
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_the_longest_unused_are_dropped_over_the_limit() -> None:
    store = TileStore("m", max_bytes=3000)
    for key in "abc":
        store.put(key, features())
    store.get("a")
    store.put("d", features())
    assert [key for key in "abcd" if store.get(key) is not None] == ["a", "c", "d"]


def test_features_over_the_limit_are_not_kept_and_drop_nothing() -> None:
    store = TileStore("m", max_bytes=999)
    store.put("small", np.zeros((1, 10), np.float32))
    store.put("large", features())
    assert store.get("large") is None
    assert store.get("small") is not None


def test_threads_may_share_it() -> None:
    store = TileStore("m", max_bytes=20_000)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        try:
            for number in random.integers(0, 50, 500).tolist():
                found = store.get(str(number))
                if found is None:
                    store.put(str(number), features(number))
                else:
                    assert found[0, 0] == number
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sum(store.get(str(number)) is not None for number in range(50)) == 20
