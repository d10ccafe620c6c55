"""The picture with its tile plan drawn on it."""

from __future__ import annotations

import numpy as np
import pytest

from edgevl.image.draw import draw_plan
from edgevl.image.read import read
from edgevl.image.tiling import centre_square, split_grid

LINE = (255, 0, 96)


def test_borders_stand_where_tiles_meet_and_the_original_is_untouched() -> None:
    rgb = np.full((256, 384, 3), 40, dtype=np.uint8)
    drawn = draw_plan(rgb, split_grid((256, 384), tile=128, longest_edge=512))
    assert (rgb == 40).all()
    assert drawn.shape == rgb.shape
    line = (drawn == LINE).all(axis=-1)
    rows, cols = np.flatnonzero(line.all(axis=1)), np.flatnonzero(line.all(axis=0))
    assert rows.tolist() == [0, 127, 128, 255]
    assert cols.tolist() == [0, 127, 128, 255, 256, 383]
    assert (drawn[60, 60] == 40).all()


def test_every_tile_of_the_grid_has_its_number() -> None:
    rgb = np.full((256, 384, 3), 40, dtype=np.uint8)
    drawn = draw_plan(rgb, split_grid((256, 384), tile=128, longest_edge=512))
    labels = [drawn[r : r + 30, c : c + 30] for r in (1, 129) for c in (1, 129, 257)]
    assert all((label == 255).all(axis=-1).any() for label in labels), "white digits"
    assert len({label.tobytes() for label in labels}) == 6, "each its own"


def test_the_overview_alone_is_one_border() -> None:
    rgb = np.full((50, 90, 3), 40, dtype=np.uint8)
    drawn = draw_plan(read(rgb), split_grid((50, 90), tile=128, longest_edge=256, detail="low"))
    inside = drawn[1:-1, 1:-1]
    assert (inside == 40).all()
    assert (drawn[0] == LINE).all()
    assert (drawn[:, -1] == LINE).all()


def test_what_is_cut_off_lies_outside_the_border() -> None:
    rgb = np.full((100, 300, 3), 40, dtype=np.uint8)
    drawn = draw_plan(rgb, centre_square((100, 300), tile=64, longest_edge=64))
    line = (drawn == LINE).all(axis=-1)
    assert np.flatnonzero(line.all(axis=0)).tolist() == [100, 199]
    assert not line[:, :100].any()
    assert not line[:, 200:].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3000, 2), (2, 3000), (7, 9)])
def test_any_picture_can_be_drawn_on(size: tuple[int, int]) -> None:
    rgb = np.zeros((*size, 3), dtype=np.uint8)
    for detail in ("high", "auto", "low"):
        assert draw_plan(rgb, split_grid(size, tile=128, longest_edge=256, detail=detail)).shape == (*size, 3)
