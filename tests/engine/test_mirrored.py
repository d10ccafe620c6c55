from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
import pytest

from edgevl.engine import mirrored
from edgevl.engine.kv import BLOCK
from edgevl.engine.mirrored import MirroredKVCache
from tests import interrupting

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives memory that repeats")


def cache(n_tokens: int = 10, limit: int = 4 * BLOCK, heads: int = 2) -> MirroredKVCache:
    made = MirroredKVCache(n_layers=1, n_kv_heads=heads, head_dim=16, dtype=np.float32, limit=limit)
    made.reserve(n_tokens, 0)
    for number, array in enumerate(made.arrays.values()):
        array[...] = number + np.arange(array.size).reshape(array.shape)
    return made


def test_what_is_written_at_one_place_is_in_all() -> None:
    made = cache()
    before = {name: array[:, :, :10].copy() for name, array in made.arrays.items()}
    assert made.mirror(3, 10)
    batch = made.batch(3)
    assert {array.shape for array in batch.values()} == {(3, 2, BLOCK, 16)}
    for name, array in batch.items():
        assert array.flags.c_contiguous
        for sequence in array:
            np.testing.assert_array_equal(sequence[None, :, :10], before[name])
        array[2, 1, 7, 3] = -5
        assert (array[:, 1, 7, 3] == -5).all()
        assert made.arrays[name][0, 1, 7, 3] == -5


def test_more_room_lies_several_times_too() -> None:
    made = cache()
    before = {name: array[:, :, :10].copy() for name, array in made.arrays.items()}
    assert made.mirror(4, 10)
    made.reserve(BLOCK + 1, 10)
    assert made.capacity == 2 * BLOCK
    for name, array in made.batch(4).items():
        assert array.shape == (4, 2, 2 * BLOCK, 16)
        np.testing.assert_array_equal(array[3:, :, :10], before[name])


def test_where_room_ends_within_a_page_it_stays_as_it_is() -> None:
    made = cache(limit=100)
    assert made.capacity == 100
    before = {name: array[:, :, :10].copy() for name, array in made.arrays.items()}
    assert not made.mirror(3, 10)
    assert made.n_times == 1
    for name, array in made.arrays.items():
        np.testing.assert_array_equal(array[:, :, :10], before[name])


def test_mirroring_that_is_interrupted_leaves_it_lying_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = cache()
    before = {name: array[:, :, :10].copy() for name, array in made.arrays.items()}
    monkeypatch.setattr(mirrored, "empty", interrupting.at_call(2, mirrored.empty))
    with pytest.raises(KeyboardInterrupt):
        made.mirror(3, 10)
    assert made.n_times == 1  # what lies behind the buffers is other memory
    for name, array in made.arrays.items():
        np.testing.assert_array_equal(array[:, :, :10], before[name])
    assert made.mirror(3, 10)


def n_mapped() -> int:
    return Path("/proc/self/maps").read_text().count("edgevl-kv")


def test_memory_is_given_back_when_nothing_refers_to_it() -> None:
    gc.collect()
    before = n_mapped()
    array = mirrored.empty((1, 4096), np.float32, 5)
    part = array[:, 3:9]
    assert n_mapped() == before + 5
    del array
    part[...] = 1
    assert n_mapped() == before + 5
    del part
    assert n_mapped() == before


def test_another_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrored.sys, "platform", "win32")
    with pytest.raises(OSError, match="this memory cannot be repeated"):
        mirrored.empty((1, 4096), np.float32, 2)
