"""Prompts in steps: all of them, in order, and cut alike where they begin alike."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgevl import steps
from edgevl.image.tiling import TilePlan, plan
from edgevl.model.manifest import ImageSpec
from edgevl.types import Chunk, ImageChunk, TextChunk

SPEC = ImageSpec(8, 32, 64, (0.5,) * 3, (0.5,) * 3, "nearest")
PLANS = [plan((16, 16), SPEC, "split_grid"), plan((8, 8), SPEC, "split_grid")]
parts = st.lists(st.one_of(st.integers(1, 300), st.sampled_from(["two by two", "one tile"])), max_size=6)


def prompt(kinds: list[Any]) -> tuple[list[Chunk], list[TilePlan]]:
    """Return text of so many tokens, and images of 5 tiles and of 1, with text before each tile."""
    chunks: list[Chunk] = []
    plans: list[TilePlan] = []
    for kind in kinds:
        if isinstance(kind, int):
            chunks.append(TextChunk((1,) * kind))
            continue
        plans.append(PLANS[kind == "one tile"])
        for tile in range(plans[-1].n_tiles):
            chunks += [TextChunk((2,) * 6), ImageChunk(len(plans) - 1, tile, 64)]
    return chunks, plans


@given(parts, st.booleans())
def test_all_is_in_steps_and_in_order(kinds: list[Any], joined: bool) -> None:
    chunks, plans = prompt(kinds)
    found = steps.cut(chunks, plans, joined)
    assert list(steps.chunks_of(found)) == chunks
    assert joined or all(len(step) == 1 for step in found)


@given(parts, parts)
def test_what_stands_behind_does_not_matter(kinds: list[Any], behind: list[Any]) -> None:
    alone, longer = (steps.cut(*prompt(some), joined=True) for some in (kinds, kinds + behind))
    assert longer[: max(len(alone) - 1, 0)] == alone[:-1]
    if alone:
        assert longer[len(alone) - 1][: len(alone[-1])] == alone[-1]


@given(parts)
def test_a_step_ends_where_it_is_long_or_an_image_ends(kinds: list[Any]) -> None:
    chunks, plans = prompt(kinds)
    found = steps.cut(chunks, plans, joined=True)
    for step, (behind, *_) in pairwise(found):
        ends_turn = isinstance(step[-1], TextChunk) and isinstance(behind, TextChunk)
        is_long = sum(chunk.n_tokens for chunk in step) >= steps.LEAST
        assert steps.ends_image(step[-1], plans) or is_long or ends_turn
    for step in found:
        kinds_of = [type(chunk) for chunk in step]
        assert (TextChunk, TextChunk) not in pairwise(kinds_of)
        assert not any(steps.ends_image(chunk, plans) for chunk in step[:-1])
        assert sum(chunk.n_tokens for chunk in step[:-1]) < steps.LEAST


def test_three_tiles_of_smolvlm_are_a_step() -> None:
    found = steps.cut(*prompt(["two by two", 9]), joined=True)
    assert [sum(chunk.n_tokens for chunk in step) for step in found] == [3 * 70, 2 * 70, 9]


def test_text_and_features_become_one_array() -> None:
    class Doubling:
        def embed(self, token_ids: Any) -> Any:
            return np.repeat(2.0 * token_ids[:, None], 3, axis=1)

    ids, features = np.array([1, 2]), np.zeros((2, 3))
    assert steps.array(Doubling(), [ids]) is ids
    assert steps.array(Doubling(), [ids, features]).tolist() == [[2] * 3, [4] * 3, [0] * 3, [0] * 3]
