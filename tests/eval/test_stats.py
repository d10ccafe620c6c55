"""Intervals and paired differences against values computed by hand and by trial."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from edgevl.eval.stats import difference, interval, mcnemar, paired_interval, wilson


def test_wilson() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=5e-5)
    assert wilson(10, 10)[1] == 1.0


def test_independent_scores_have_wilsons_interval() -> None:
    assert interval([1] * 8 + [0] * 2, range(10)) == pytest.approx(wilson(8, 10))
    assert interval([1.0] * 5, range(5)) == pytest.approx(wilson(5, 5))


def test_questions_that_go_together_count_once() -> None:
    scores, pictures = [1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1], [number // 3 for number in range(12)]
    assert interval(scores, pictures) == pytest.approx(wilson(3, 4))
    assert interval([1] * 12, pictures) == pytest.approx(wilson(4, 4))
    assert interval([1, 0, 1], ["a"] * 3) == pytest.approx(wilson(2 / 3, 1))


def test_questions_that_go_apart_count_no_more_than_alone() -> None:
    assert interval([1, 0] * 6, [number // 2 for number in range(12)]) == pytest.approx(wilson(6, 12))


def test_fractions_are_on_the_safe_side() -> None:
    assert interval([0.5] * 10, range(10)) == pytest.approx(wilson(5, 10))


def test_the_interval_holds_the_truth_95_times_of_100() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        pictures = rng.beta(2, 2, 40)  # each picture is easier or harder; the mean is 0.5
        scores = rng.binomial(1, np.repeat(pictures, 5))
        low, high = interval([float(score) for score in scores], [int(i) for i in np.repeat(np.arange(40), 5)])
        hits += low <= 0.5 <= high
    assert 0.92 < hits / 400 < 0.98


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(6, 1, 16 / 128), (5, 0, 2 / 32), (3, 3, 1.0), (0, 0, 1.0), (10, 2, 2 * (1 + 12 + 66) / 4096)],
)
def test_mcnemar_is_exact(first: int, second: int, p: float) -> None:
    assert mcnemar([1] * first + [-1] * second + [0] * 9) == pytest.approx(p)


def test_sums_over_clusters_take_the_test_of_all_signs() -> None:
    sums = [3, -1, 2, 2]
    totals = [
        abs(sum(sign * size for sign, size in zip(signs, sums, strict=True))) for signs in product((1, -1), repeat=4)
    ]
    assert mcnemar(sums) == pytest.approx(sum(total >= 6 for total in totals) / 16)


def test_fractions_take_the_normal_limit() -> None:
    assert mcnemar([0.5] * 4) == pytest.approx(0.0455, abs=5e-5)  # z = 2


def test_the_interval_of_a_difference() -> None:
    # Bonett and Price: 6 and 1 of 20 become 7 and 2 of 22
    mean = 5 / 22
    half = 1.96 * np.sqrt((7 / 22 + 2 / 22 - mean**2) / 22)
    low, high = paired_interval([1] * 6 + [-1] + [0] * 13, range(20))
    assert (low, high) == pytest.approx((mean - half, mean + half))


def test_two_models_that_agree_everywhere_may_still_differ_a_little() -> None:
    found = difference([1.0, 0.0] * 50, [1.0, 0.0] * 50, range(100))
    assert (found.value, found.n_first, found.n_second, found.p) == (0, 0, 0, 1)
    assert -0.05 < found.low < 0 < found.high < 0.05
    assert not found.is_shown


def test_a_difference() -> None:
    found = difference([1.0] * 30 + [0.0] * 70, [1.0] * 10 + [0.0] * 90, range(100))
    assert (found.n, found.n_first, found.n_second) == (100, 20, 0)
    assert found.value == pytest.approx(0.2)
    assert found.low > 0.1
    assert found.is_shown
    back = difference([1.0] * 10 + [0.0] * 90, [1.0] * 30 + [0.0] * 70, range(100))
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_clusters_make_a_difference_less_sure() -> None:
    first, second = [1.0] * 20 + [0.0] * 20, [1.0] * 10 + [0.0] * 30
    alone = difference(first, second, range(40))
    together = difference(first, second, [number // 10 for number in range(40)])
    assert together.p == 1.0
    assert alone.p < 0.01
    assert together.high - together.low > 2 * (alone.high - alone.low)
