from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevl.engine.kv import BLOCK, KVCache, TurningKVCache
from tests import interrupting


def small_cache(limit: int = 1000) -> KVCache:
    return KVCache(n_layers=2, n_kv_heads=3, head_dim=4, dtype=np.float32, limit=limit)


def test_it_begins_empty_with_a_key_and_a_value_per_layer() -> None:
    cache = small_cache()
    assert sorted(cache.arrays) == ["0.key", "0.value", "1.key", "1.value"]
    assert {array.shape for array in cache.arrays.values()} == {(1, 3, 0, 4)}
    assert cache.capacity == 0


def test_room_comes_in_blocks_and_then_doubles() -> None:
    cache = small_cache(limit=10_000)
    capacities = []
    for n_tokens in (1, BLOCK, BLOCK + 1, 3 * BLOCK):
        cache.reserve(n_tokens, 0)
        capacities.append(cache.capacity)
    assert capacities == [BLOCK, BLOCK, 2 * BLOCK, 4 * BLOCK]
    assert {array.shape for array in cache.arrays.values()} == {(1, 3, 4 * BLOCK, 4)}
    assert {array.dtype for array in cache.arrays.values()} == {np.dtype(np.float32)}


def test_room_for_what_is_expected_comes_at_once() -> None:
    cache = small_cache(limit=4 * BLOCK)
    cache.expect(3 * BLOCK - 1)
    assert cache.capacity == 0
    cache.reserve(1, 0)
    assert cache.capacity == 3 * BLOCK
    cache.expect(9 * BLOCK)
    cache.reserve(3 * BLOCK, 1)
    assert cache.capacity == 3 * BLOCK
    cache.reserve(3 * BLOCK + 1, 1)
    assert cache.capacity == 4 * BLOCK


def test_it_says_whether_the_buffers_moved() -> None:
    cache = small_cache()
    assert cache.has_moved  # nobody knows them yet
    for n_tokens, moves in ((10, True), (BLOCK, False), (BLOCK + 1, True)):
        cache.has_moved, before = False, cache.arrays["0.key"]
        cache.reserve(n_tokens, 0)
        assert cache.has_moved is moves
        assert (cache.arrays["0.key"] is not before) is moves


def test_growing_keeps_what_is_used() -> None:
    cache = small_cache()
    cache.reserve(5, 0)
    for number, array in enumerate(cache.arrays.values()):
        array[:, :, :5] = number + np.arange(5)[:, None]
    cache.reserve(BLOCK + 1, 5)
    for number, array in enumerate(cache.arrays.values()):
        np.testing.assert_array_equal(array[0, 2, :5, 3], number + np.arange(5))


def test_capacity_ends_at_the_limit() -> None:
    cache = small_cache(limit=300)
    cache.reserve(257, 0)
    assert cache.capacity == 300
    cache.reserve(300, 257)
    assert cache.capacity == 300


@given(st.integers(1, 2000), st.lists(st.integers(1, 2000), max_size=8))
def test_there_is_always_room_and_never_past_the_limit(limit: int, wishes: list[int]) -> None:
    cache = small_cache(limit)
    used = 0
    for wish in wishes:
        n_tokens = min(wish, limit)
        cache.reserve(n_tokens, min(used, n_tokens))
        used = n_tokens
        assert n_tokens <= cache.capacity <= limit
        assert cache.arrays["1.value"].shape[2] == cache.capacity


@pytest.mark.parametrize("kind", [KVCache, TurningKVCache])
@pytest.mark.parametrize("n_before", range(4))
def test_growing_that_is_interrupted_leaves_all_as_it_was(
    kind: type[KVCache], n_before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = kind(n_layers=2, n_kv_heads=3, head_dim=4, dtype=np.float32, limit=1000)
    cache.reserve(9, 0)
    for number, array in enumerate(cache.present.values()):
        array[:, :, :9] = number + np.arange(9)[:, None]
    cache.turn()
    before = cache.save(9, np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(kind, "_empty", interrupting.at_call(n_before + 1, kind._empty))
        with pytest.raises(KeyboardInterrupt):
            cache.reserve(BLOCK + 1, 9)
    assert cache.capacity == BLOCK
    np.testing.assert_array_equal(cache.save(9, np.float32), before)
    cache.reserve(BLOCK + 1, 9)
    np.testing.assert_array_equal(cache.save(9, np.float32), before)


class TestTurning:
    def small(self, limit: int = 1000) -> TurningKVCache:
        return TurningKVCache(n_layers=1, n_kv_heads=3, head_dim=4, dtype=np.float32, limit=limit)

    def run(self, cache: TurningKVCache, n_used: int, n_new: int) -> None:
        """Do what a graph does: copy the past and write its tokens' places behind."""
        cache.reserve(n_used + n_new, n_used)
        for past, present in zip(cache.arrays.values(), cache.present.values(), strict=True):
            assert past.shape == (1, 3, n_used, 4)
            assert present.shape == (1, 3, n_used + n_new, 4)
            assert past.flags.c_contiguous
            assert present.flags.c_contiguous
            assert not np.shares_memory(past, present)
            present[:, :, :n_used] = past
            present[:, :, n_used:] = np.arange(n_used, n_used + n_new)[:, None]
        cache.turn()

    def test_a_step_moves_nothing_into_new_memory(self) -> None:
        cache = self.small()
        self.run(cache, 0, 2)
        places = {cache.arrays["0.key"].ctypes.data, cache.present["0.key"].ctypes.data}
        assert len(places) == 2
        for n_used in range(2, 9):
            self.run(cache, n_used, 1)
            assert {cache.arrays["0.key"].ctypes.data, cache.present["0.key"].ctypes.data} == places

    @given(st.lists(st.tuples(st.integers(0, 600), st.integers(1, 300)), max_size=8))
    def test_what_is_kept_is_what_was_there(self, steps: list[tuple[int, int]]) -> None:
        cache, n_held = self.small(), 0
        for n_kept, n_new in steps:
            n_used = min(n_kept, n_held)
            self.run(cache, n_used, n_new)
            n_held = n_used + n_new
            np.testing.assert_array_equal(cache.save(n_held, np.float32)[1, 2, :, 3], np.arange(n_held))
