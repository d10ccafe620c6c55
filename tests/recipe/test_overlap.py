"""Pictures that both parts draw are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgevl.recipe.data import Paths
from edgevl.recipe.heldout import items
from edgevl.recipe.overlap import Overlap, drawn, overlap
from tests.recipe.test_duplicates import photo


def test_equal_and_near_pictures_are_counted() -> None:
    pictures = [np.asarray(photo(seed)) for seed in range(12)]
    brighter = (pictures[1] * 0.9).astype(np.uint8)
    assert overlap(pictures[:4], [pictures[0], brighter, *pictures[4:]]) == Overlap(4, 1, 2)
    assert overlap(pictures[:4], pictures[4:]) == Overlap(4, 0, 0)


def test_a_picture_of_another_shape_is_not_equal() -> None:
    even = np.full((20, 40, 3), 90, np.uint8)
    assert overlap([even], [even.reshape(40, 20, 3)]) == Overlap(1, 0, 1)


def test_scenes_of_both_parts_differ(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path, tmp_path, tmp_path)
    held_out = [item.rgb for item in items(paths, "relations", 20)]
    training = list(drawn(paths, "relations", 40))
    assert {picture.shape for picture in training} == {(128, 128, 3)}
    assert overlap(held_out, training).n_equal == 0
    assert overlap(training[:3], drawn(paths, "relations", 3)).n_equal == 3, "one seed, one picture"
