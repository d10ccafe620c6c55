"""The ways that encoder and decoder can share the cores."""

from __future__ import annotations

import pytest

pytest.importorskip("psutil")

from benchmarks.streaming import Way, summary, ways


def test_the_first_way_is_what_others_are_measured_against() -> None:
    assert ways(2) == [Way(2, 2, False), Way(2, 2, True), Way(1, 1, True), Way(2, 1, True)]


@pytest.mark.parametrize("n_threads", [1, 2, 3, 4, 8])
def test_every_way_has_threads_and_none_comes_twice(n_threads: int) -> None:
    tried = ways(n_threads)
    assert all(
        1 <= min(way.n_encoder, way.n_decoder) <= max(way.n_encoder, way.n_decoder) <= n_threads for way in tried
    )
    assert len({way.name for way in tried}) == len(tried)


def test_ratios_are_taken_within_a_round() -> None:
    found = summary({"first": [1.0, 10.0, 2.0], "second": [2.0, 5.0, 3.0]})
    assert found["second"]["ratio"] == 1.5
    assert (found["second"]["lowest"], found["second"]["highest"]) == (0.5, 2.0)
    assert found["second"]["first_token_s"] == 3.0
    assert found["first"]["ratio"] == 1.0
