"""The arithmetic of predictions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevl.image.tiling import plan
from edgevl.latency.profile import Profile, Work, resized_pixels, work_of
from edgevl.model.manifest import ImageSpec
from edgevl.types import ImageChunk, TextChunk

PROFILE = Profile(
    resize_s=0.01, cut_s=0.002, encode_s=0.1, encode_more_s=0.08, feed_s=0.003, token_s=0.001, fixed_s=0.005,
    cold_s=0.05, saved_s=0.02,
)  # fmt: skip
short = st.floats(0, 0.5)
profiles = st.builds(Profile, short, short, short, short, short, short, short, short, st.floats(-1, 1))
counts = st.integers(0, 40)


def test_an_estimate_is_the_sum_of_its_parts() -> None:
    work = Work(resized=2_000_000, n_tiles=4, n_steps=6, n_tokens=100)
    found = PROFILE.estimate(work, read_s=0.03)
    assert found.tile_s == pytest.approx(0.02 + 4 * 0.002)
    assert found.encode_s == pytest.approx(0.1 + 3 * 0.08)
    assert found.prefill_s == pytest.approx(6 * 0.003 + 0.1)
    assert found.first_token_s == pytest.approx(0.03 + 0.005 + 0.028 + 0.34 + found.prefill_s - 3 * 0.02)
    assert PROFILE.estimate(work, read_s=0.03, is_cold=True).first_token_s == pytest.approx(found.first_token_s + 0.05)


def test_text_alone_costs_its_prefill() -> None:
    assert PROFILE.estimate(Work(0, 0, 1, 20)).first_token_s == pytest.approx(0.003 + 0.02 + 0.005)


@given(profiles, counts, counts, st.integers(1, 64))
def test_more_tiles_never_take_less_time(profile: Profile, n_tiles: int, more: int, n_tokens: int) -> None:
    def total_s(n: int) -> float:
        return profile.estimate(Work(0, n, 2 * n + 1, n * n_tokens + 10)).first_token_s

    assert total_s(n_tiles) <= total_s(n_tiles + more) * (1 + 1e-9)


@given(profiles, counts, counts)
def test_no_estimate_is_shorter_than_one_tile_and_the_prefill(profile: Profile, n_tiles: int, n_tokens: int) -> None:
    found = profile.estimate(Work(10**6, n_tiles, n_tiles + 1, n_tokens))
    one = profile.estimate(Work(10**6, min(n_tiles, 1), 0, 0))
    assert found.first_token_s >= one.first_token_s + found.prefill_s - 1e-9


def test_work_counts_only_what_is_still_to_do() -> None:
    spec = ImageSpec(512, 2048, 64, (0.5,) * 3, (0.5,) * 3, "lanczos")
    plans = [plan((1024, 1024), spec, "split_grid"), plan((512, 512), spec, "split_grid")]
    steps = [(TextChunk((1, 2, 3)),), (ImageChunk(1, 0, 64),), (TextChunk((4,)),)]
    assert work_of(steps, plans, [0, 1]) == Work(resized=0, n_tiles=1, n_steps=3, n_tokens=68)
    # The first image is cut into 2x2 tiles of its own size, and resized to the overview.
    assert work_of(steps, plans, [5, 1]).resized == 1024 * 1024 + 512 * 1024

    closest = plan((1024, 1024), ImageSpec(512, 4 * 512, 64, (0.5,) * 3, (0.5,) * 3, "bicubic"), "closest_grid")
    assert work_of(steps, [closest, closest], [5, 0]).resized == 1024 * 1024 + 512 * 1024
    middle = plan((512, 1024), spec, "centre_square")
    assert work_of(steps, [middle, middle], [1, 0]).resized == 0


@pytest.mark.parametrize(
    ("size", "steps", "wanted"),
    [
        ((100, 100), [(100, 100)], 0),
        ((100, 200), [(100, 50)], 100 * 200),  # rows alone
        ((100, 200), [(50, 200)], 200 * 100),  # columns alone
        ((100, 100), [(200, 200)], 100 * 200 + 200 * 200),
        ((100, 100), [(200, 200), (50, 50)], 100 * 200 + 200 * 200 + 200 * 200 + 50 * 200),
    ],
)
def test_pixels_gone_over(size: tuple[int, int], steps: list[tuple[int, int]], wanted: int) -> None:
    assert resized_pixels(size, *steps) == wanted


def test_a_profile_comes_back_as_it_was() -> None:
    assert Profile.from_dict(PROFILE.to_dict()) == PROFILE
    assert Profile.from_dict(replace(PROFILE, saved_s=-1.5).to_dict()).saved_s == -1.5


@pytest.mark.parametrize(
    "change",
    [{"encode_s": -1}, {"encode_s": float("nan")}, {"encode_s": float("inf")}, {"encode_s": "1"}, {"encode_s": True},
     {"encode_s": None}, {"saved_s": float("inf")}, {"more": 1}],
)  # fmt: skip
def test_what_is_no_profile_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"profile|number|range"):
        Profile.from_dict(PROFILE.to_dict() | change)


@pytest.mark.parametrize("raw", [None, [], {}, "profile", 3])
def test_other_data_are_refused(raw: object) -> None:
    with pytest.raises(ValueError, match="not the fields of a profile"):
        Profile.from_dict(raw)
