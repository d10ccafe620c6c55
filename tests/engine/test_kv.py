from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgevl.engine.kv import BLOCK, KVCache


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


def test_reserve_says_whether_the_buffers_moved() -> None:
    cache = small_cache()
    assert cache.reserve(10, 0)
    before = cache.arrays["0.key"]
    assert not cache.reserve(BLOCK, 10)
    assert cache.arrays["0.key"] is before
    assert cache.reserve(BLOCK + 1, 10)
    assert cache.arrays["0.key"] is not before


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
    assert not cache.reserve(300, 257)


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
