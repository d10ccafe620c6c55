"""Tiles of text: every label is the letter that is there, and what is asked for can be read."""

from __future__ import annotations

import random

import numpy as np

from edgevl.recipe.drawn import Stock
from edgevl.recipe.glyphs import GLYPHS, HALVES, UNKNOWN, page_tile, patch_labels, text_tile
from edgevl.recipe.plan import IGNORE

SEEDS = range(40)


def test_one_seed_one_tile(training: Stock) -> None:
    first, again, other = (page_tile(random.Random(seed), training) for seed in (1, 1, 2))
    assert first.picture.size == (128, 128)
    assert first.picture.tobytes() == again.picture.tobytes() != other.picture.tobytes()
    assert all((first.labels[half] == again.labels[half]).all() for half in HALVES)


def test_halves_of_patches_are_labelled_by_what_their_middle_shows() -> None:
    letters = np.zeros((128, 128), np.uint8)
    letters[0:8, 0:4] = 1  # the left half of the first patch
    letters[0:8, 4:8] = 2
    letters[8:16, 0:8] = 3  # both halves of the patch below
    letters[0:1, 8:16] = 4  # no more than the edge of the second
    letters[16:24, 0:8] = UNKNOWN
    labels = patch_labels(letters)
    left, right = (labels[half] for half in HALVES)
    assert [left[0], right[0], left[16], right[16]] == [1, 2, 3, 3]
    assert left[1] == right[1] == left[32] == IGNORE
    assert left[2] == 0


def test_a_tile_that_is_asked_about_shows_its_letters_and_no_others(training: Stock) -> None:
    shown, all_letters = 0, 0
    for seed in SEEDS:
        tile = text_tile(random.Random(seed), training)
        (_, answer), *_ = tile.pairs
        seen = {GLYPHS[label - 1] for half in HALVES for label in tile.labels[half] if label > 0}
        wanted = set(answer) - {" "}
        assert seen <= wanted
        shown, all_letters = shown + len(seen), all_letters + len(wanted)
    assert shown > 0.85 * all_letters


def test_rows_are_asked_for_by_number_and_by_neighbour(training: Stock) -> None:
    n_rows = set()
    for seed in SEEDS:
        (_, text), *others = text_tile(random.Random(seed), training).pairs
        if not others:
            n_rows.add(1)
            continue
        *rows, (asked, neighbour) = others
        assert " ".join(row for _, row in rows) == text
        for (question, _), names in zip(rows, ("first", "second", "third"), strict=False):
            assert names in question or "last" in question
        place = [row for _, row in rows].index(neighbour)
        beside = [rows[n][1] for n in (place - 1, place + 1) if 0 <= n < len(rows)]
        assert any(f'"{row}"' in asked for row in beside)
        n_rows.add(len(rows))
    assert n_rows == {1, 2, 3}


def test_a_full_tile_has_letters_everywhere_and_no_question(training: Stock) -> None:
    tiles = [page_tile(random.Random(seed), training) for seed in SEEDS]
    labels = np.stack([tile.labels[half] for tile in tiles for half in HALVES])
    assert not any(tile.pairs for tile in tiles)
    assert 0.3 < (labels > 0).mean() < 0.7
    assert (labels == IGNORE).mean() < 0.25
    assert {GLYPHS[label - 1] for label in labels[labels > 0]} >= set("aeinorst0123456789AEORT.")


def test_letters_lie_where_they_are_labelled(training: Stock) -> None:
    """Where labels say that there is no letter, there is no ink: brightness varies much more where there is one."""
    with_letters, without = [], []
    for seed in SEEDS:
        tile = page_tile(random.Random(seed), training)
        grey = np.asarray(tile.picture.convert("L"), np.float32)
        spread = grey.reshape(16, 8, 16, 8).std(axis=(1, 3)).reshape(-1)
        left, right = (tile.labels[half] for half in HALVES)
        with_letters.append(spread[(left > 0) & (right > 0)])
        without.append(spread[(left == 0) & (right == 0)])
    assert np.median(np.concatenate(with_letters)) > 5 * np.median(np.concatenate(without))
