from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgevl.store.keys import prefix_keys, tile_key


def tile(value: int = 0, side: int = 4) -> NDArray[np.uint8]:
    return np.full((side, side, 3), value, np.uint8)


def test_a_tiles_key_is_pixels_shape_and_model() -> None:
    assert tile_key("a", tile(1)) == tile_key("a", tile(1).copy())
    assert len(tile_key("a", tile(1))) == 64
    others = {
        tile_key("a", tile(2)),
        tile_key("a", tile(1, side=5)),
        tile_key("a", tile(1).reshape(2, 8, 3)),
        tile_key("b", tile(1)),
    }
    assert tile_key("a", tile(1)) not in others
    assert len(others) == 4


def test_the_key_of_a_view_is_that_of_its_pixels() -> None:
    wide = np.random.default_rng(0).integers(0, 255, (4, 8, 3), np.uint8)
    assert tile_key("m", wide[:, 4:]) == tile_key("m", wide[:, 4:].copy())


def test_one_changed_pixel_is_another_tile() -> None:
    changed = tile()
    changed[3, 3, 2] = 1
    assert tile_key("m", changed) != tile_key("m", tile())


@given(st.lists(st.text(max_size=3), max_size=6), st.lists(st.text(max_size=3), max_size=6), st.sampled_from("xy"))
def test_prefix_keys_agree_exactly_as_far_as_the_chunks_do(one: list[str], two: list[str], model: str) -> None:
    first, second = prefix_keys("x", one), prefix_keys(model, two)
    assert (len(first), len(second)) == (len(one), len(two))
    for n in range(1, min(len(one), len(two)) + 1):
        assert (first[n - 1] == second[n - 1]) == (one[:n] == two[:n] and model == "x")


def test_prefix_keys_depend_on_where_chunks_are_cut() -> None:
    assert prefix_keys("m", ["1,2"])[-1] != prefix_keys("m", ["1", "2"])[-1]
