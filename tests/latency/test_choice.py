"""Which plans a budget gets: properties over thousands of sizes, details and machines, without a clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevl.errors import InputError
from edgevl.image.tiling import TilePlan, coarser, plan
from edgevl.latency.choice import choose, levels, read_as, seconds
from edgevl.latency.profile import Estimate, Profile, work_of
from edgevl.model.manifest import ImageSpec
from edgevl.types import Chunk, Detail, ImageChunk, TextChunk

SPEC = ImageSpec(512, 2048, 64, (0.5,) * 3, (0.5,) * 3, "lanczos")

sides = st.integers(1, 6000)
sizes = st.lists(st.tuples(sides, sides), min_size=1, max_size=3)
details = st.sampled_from(["auto", "high", "low", 1, 4, 6, 11])
short = st.floats(0, 0.5)
profiles = st.builds(Profile, short, short, short, short, short, st.floats(0, 0.01), short, short, st.floats(-0.5, 0.5))
budgets = st.floats(0.01, 100)
moderate = settings(max_examples=50, deadline=None)


def chunks_of(plans: tuple[TilePlan, ...]) -> list[Chunk]:
    """A prompt such as a family writes: markers before each tile, text at both ends."""
    chunks: list[Chunk] = [TextChunk((1,) * 5)]
    for image, cut in enumerate(plans):
        for tile in range(cut.n_tiles):
            chunks += [TextChunk((2, 3)), ImageChunk(image, tile, SPEC.tokens_per_tile)]
    return [*chunks, TextChunk((1,) * 9)]


def estimate(plans: tuple[TilePlan, ...], profile: Profile) -> Estimate:
    steps = [(chunk,) for chunk in chunks_of(plans)]
    return profile.estimate(work_of(steps, plans, [cut.n_tiles for cut in plans]), read_s=0.01)


def chosen(
    sizes: list[tuple[int, int]], detail: Detail, profile: Profile, within_s: float | None
) -> tuple[tuple[TilePlan, ...], float]:
    """Return the plans that the images get, and the seconds predicted for them."""
    tried: list[tuple[TilePlan, ...]] = []

    def estimates() -> object:
        for plans in levels([coarser(size, SPEC, "split_grid", detail) for size in sizes]):
            tried.append(plans)
            yield estimate(plans, profile)

    found = choose(estimates(), within_s)  # type: ignore[arg-type]
    return tried[-1], found.first_token_s


@moderate
@given(sizes, details, profiles, budgets, budgets)
def test_more_time_never_means_fewer_tiles(
    sizes: list[tuple[int, int]], detail: Detail, profile: Profile, one: float, other: float
) -> None:
    less, more = (chosen(sizes, detail, profile, within_s)[0] for within_s in sorted((one, other)))
    assert all(a.n_tiles <= b.n_tiles for a, b in zip(less, more, strict=True))


@moderate
@given(sizes, details, profiles, budgets)
def test_never_more_than_detail_allows(
    sizes: list[tuple[int, int]], detail: Detail, profile: Profile, within_s: float
) -> None:
    plans, _ = chosen(sizes, detail, profile, within_s)
    allowed = [plan(size, SPEC, "split_grid", detail) for size in sizes]
    assert all(got.n_tiles <= most.n_tiles for got, most in zip(plans, allowed, strict=True))
    assert chosen(sizes, detail, profile, None)[0] == tuple(allowed)
    assert chosen(sizes, detail, profile, 1e9)[0] == tuple(allowed)


@moderate
@given(sizes, details, profiles, budgets)
def test_what_is_chosen_fits_or_is_the_least(
    sizes: list[tuple[int, int]], detail: Detail, profile: Profile, within_s: float
) -> None:
    plans, first_token_s = chosen(sizes, detail, profile, within_s)
    least = [cut.n_tiles == 1 for cut in plans]
    assert first_token_s <= within_s or all(least)


@moderate
@given(sizes, details, profiles, budgets)
def test_no_level_with_more_tiles_would_have_fitted(
    sizes: list[tuple[int, int]], detail: Detail, profile: Profile, within_s: float
) -> None:
    plans, _ = chosen(sizes, detail, profile, within_s)
    for level in levels([coarser(size, SPEC, "split_grid", detail) for size in sizes]):
        if level == plans:
            return
        assert estimate(level, profile).first_token_s > within_s


def test_nothing_behind_the_chosen_one_is_computed() -> None:
    def estimates() -> object:
        yield Estimate(3.0, 0, 0, 0, 0)
        yield Estimate(1.0, 0, 0, 0, 0)
        raise AssertionError

    assert choose(estimates(), 2.0).first_token_s == 1.0  # type: ignore[arg-type]


def test_images_share_a_budget_evenly() -> None:
    large, small = (tuple(coarser(size, SPEC, "split_grid", "auto")) for size in ((2048, 2048), (512, 1024)))
    found = [tuple(cut.n_tiles for cut in level) for level in levels([large, small])]
    assert found == [(17, 3), (10, 3), (5, 3), (1, 3), (1, 1)]


def test_without_images_there_is_one_level() -> None:
    assert list(levels([])) == [()]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("2s", 2), ("1.5s", 1.5), ("800ms", 0.8), ("2", 2), (" 2 s ", 2), (".5s", 0.5), ("5.", 5), (2, 2), (0.25, 0.25),
     (np.float32(0.5), 0.5), (np.int64(2), 2)],
)  # fmt: skip
def test_durations(text: object, wanted: float) -> None:
    assert seconds(text) == pytest.approx(wanted)


@pytest.mark.parametrize(
    "text", ["", ".", "s", "0", "0s", "-1s", "2m", "2 minutes", "1e3", "inf", "nan", "２s", "2s2", 0, -1, True, None,
             [2], float("nan"), float("inf"), "9" * 5000, 10**400],
)  # fmt: skip
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(InputError, match=r"it must be a time above 0, such as 2s, 1\.5s or 800ms$") as caught:
        seconds(text)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("size", "detail", "wanted"),
    [
        ((1536, 2048), "low", (384, 512)),
        ((1536, 2048), "high", (1536, 2048)),
        ((480, 640), "high", (480, 640)),  # enlarged, so all of it is seen
        ((3000, 3), "low", (512, 1)),
    ],
)
def test_the_size_that_an_image_is_read_at(size: tuple[int, int], detail: Detail, wanted: tuple[int, int]) -> None:
    assert read_as(plan(size, SPEC, "split_grid", detail)) == wanted
