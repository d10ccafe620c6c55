from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgevl.store.disk import Disk
from edgevl.store.memory import Store


def features(value: float = 0.0) -> NDArray[np.float32]:
    """Return 1000 bytes of features."""
    return np.full((25, 10), value, np.float32)


def test_what_was_put_comes_back() -> None:
    store = Store("tiles", 10**6)
    assert store.get("a") is None
    store.put("a", features(1))
    store.put("a", features(2))  # the same pixels have the same features: the first stays
    found = store.get("a")
    assert found is not None
    np.testing.assert_array_equal(found, features(1))


def test_features_cannot_be_changed_by_who_gets_them() -> None:
    store = Store("tiles", 10**6)
    store.put("a", features())
    found = store.get("a")
    assert found is not None
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_the_longest_unused_are_dropped_over_the_limit() -> None:
    store = Store("tiles", 3000)
    for key in "abc":
        store.put(key, features())
    store.get("a")
    store.put("d", features())
    assert [key for key in "abcd" if store.get(key) is not None] == ["a", "c", "d"]


def test_features_over_the_limit_are_not_kept_and_drop_nothing() -> None:
    store = Store("tiles", 999)
    store.put("small", np.zeros((1, 10), np.float32))
    store.put("large", features())
    assert store.get("large") is None
    assert store.get("small") is not None


def test_threads_may_share_it() -> None:
    store = Store("tiles", 20_000)
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


def test_what_memory_has_no_room_for_is_on_disk(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    store = Store("tiles", 1500, disk)
    for number in range(3):
        store.put(str(number), features(number))
    disk.flush()
    store.clear()
    for number in range(3):
        assert store.has(str(number))
        found = store.get(str(number))
        assert found is not None
        np.testing.assert_array_equal(found, features(number))
    assert not store.has("3")
    assert store.get("3") is None


def test_what_is_left_to_the_disk_takes_no_memory(tmp_path: Path) -> None:
    store = Store("prefixes", 10**6, disk := Disk(tmp_path), leaves_to_disk=True)
    store.put("a", features(1))
    disk.flush()
    disk.clear()
    assert store.get("a") is None


def test_what_the_disk_does_not_keep_is_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    no_folder, too_small = Disk(tmp_path / "file"), Disk(tmp_path / "small", max_bytes=10)
    for disk in (no_folder, too_small):
        store = Store("prefixes", 10**6, disk, leaves_to_disk=True)
        for key in ("first", "second"):  # the first one is what shows that nothing can be written
            store.put(key, features(1))
            disk.flush()
        assert store.get("second") is not None
    assert Store("prefixes", 10**6, leaves_to_disk=True).get("a") is None


def test_kinds_are_kept_apart(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    Store("tiles", 10**6, disk).put("a", features(1))
    disk.flush()
    assert Store("prefixes", 10**6, disk).get("a") is None
    assert Store("tiles", 10**6, disk).get("a") is not None
