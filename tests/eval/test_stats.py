"""Intervals and paired differences against values computed by hand and by trial."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from edgevl.eval.stats import difference, interval, mcnemar, mean_interval, paired_interval, t_quantile, wilson


def test_wilson() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=5e-5)
    assert wilson(10, 10)[1] == 1.0


def test_independent_scores_have_wilsons_interval() -> None:
    assert interval([1] * 8 + [0] * 2, range(10)) == pytest.approx(wilson(8, 10))
    assert interval([1.0] * 5, range(5)) == pytest.approx(wilson(5, 5))


def test_questions_that_go_together_count_once() -> None:
    # By hand: a share of 0.75 has a variance of 0.1875 / 11 among 12 questions and of 0.1875 / 3 among four pictures:
    # the design effect is 11/3, and 12 questions are 36/11; t is 2.201 with 11 degrees of freedom, 3.182 with 3.
    scores, pictures = [1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1], [number // 3 for number in range(12)]
    n = 36 / 11 * (2.20099 / 3.18245) ** 2
    assert interval(scores, pictures) == pytest.approx(wilson(0.75 * n, n), abs=5e-5)


def test_where_all_go_alike_few_pictures_say_little() -> None:
    # By hand: nothing varies, so the design effect is 1; 12 questions are 12 * (2.201 / 3.182)^2 = 5.74, and Wilson's
    # interval of 5.74 of 5.74 begins at 5.74 / (5.74 + 1.96^2).
    low, high = interval([1] * 12, [number // 3 for number in range(12)])
    assert (low, high) == pytest.approx((0.5991, 1.0), abs=5e-5)


def test_one_picture_says_nothing_about_others() -> None:
    assert interval([1, 0, 1], ["a"] * 3) == (0.0, 1.0)
    assert interval([1.0], ["a"]) == pytest.approx(wilson(1, 1)), "one question is as good as independent"


def test_a_first_right_answer_moves_the_interval_by_little() -> None:
    pictures = [number % 2 for number in range(60)]
    ends = [interval([1] * n_right + [0] * (60 - n_right), pictures)[1] for n_right in (0, 2)]
    # By hand: 60 questions on two pictures are 60 * (2.001 / 12.706)^2 = 1.488
    assert ends[0] == pytest.approx(1.96**2 / (1.488 + 1.96**2), abs=5e-4)
    assert ends[0] < ends[1] < ends[0] + 0.02


def test_many_pictures_keep_their_interval() -> None:
    rng = np.random.default_rng(0)
    pictures = np.arange(500) // 2
    scores = rng.binomial(1, np.full(500, 0.7)).astype(float)
    alone = wilson(float(scores.sum()), 500)
    low, high = interval(list(scores), list(map(int, pictures)))
    deviations = scores - scores.mean()
    effect = max(float((deviations.reshape(250, 2).sum(1) ** 2).sum() / (deviations**2).sum()), 1.0)
    assert (low, high) == pytest.approx(wilson(float(scores.sum()) / effect, 500 / effect), abs=5e-4)
    assert high - low == pytest.approx(alone[1] - alone[0], rel=0.1)


@pytest.mark.parametrize(
    ("degrees", "value"),
    [(1, 12.7062), (2, 4.3027), (4, 2.7764), (5, 2.5706), (10, 2.2281), (30, 2.0423), (120, 1.9799), (499, 1.9647)],
)
def test_quantiles_are_those_of_the_tables(degrees: int, value: float) -> None:
    assert t_quantile(degrees) == pytest.approx(value, abs=3e-4)


def test_the_interval_of_a_mean_of_shares() -> None:
    # By hand: 0.5 (0.3 to 0.7) and 0.9 (0.8 to 0.95): the mean is 0.7, the ends sqrt(0.2^2 + 0.1^2) / 2 below and
    # sqrt(0.2^2 + 0.05^2) / 2 above
    low, high = mean_interval([(0.5, 0.3, 0.7), (0.9, 0.8, 0.95)])
    assert (low, high) == pytest.approx((0.7 - 0.111803, 0.7 + 0.103078), abs=5e-6)
    assert mean_interval([(0.5, 0.3, 0.7)]) == pytest.approx((0.3, 0.7))
    assert mean_interval([(1.0, 0.6, 1.0)] * 2)[1] == 1.0


def test_questions_that_go_apart_count_no_more_than_alone() -> None:
    n = 12 * (2.20099 / 2.57058) ** 2  # six pictures: t with 5 degrees of freedom
    assert interval([1, 0] * 6, [number // 2 for number in range(12)]) == pytest.approx(wilson(n / 2, n), abs=5e-4)


def test_fractions_are_on_the_safe_side() -> None:
    assert interval([0.5] * 10, range(10)) == pytest.approx(wilson(5, 10))


@pytest.mark.parametrize(("n_pictures", "n_each"), [(40, 5), (10, 6), (4, 10)])
def test_the_interval_holds_the_truth_95_times_of_100(n_pictures: int, n_each: int) -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        pictures = rng.beta(2, 2, n_pictures)  # each picture is easier or harder; the mean is 0.5
        scores = rng.binomial(1, np.repeat(pictures, n_each))
        clusters = [int(number) for number in np.repeat(np.arange(n_pictures), n_each)]
        low, high = interval([float(score) for score in scores], clusters)
        hits += low <= 0.5 <= high
    assert 0.92 < hits / 400 < 0.985


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


def test_the_interval_of_a_difference_on_few_pictures() -> None:
    changes, pictures = [1.0] * 6 + [0.0] * 14, [number % 4 for number in range(20)]
    mean = 6 / 22
    sums = [2 - 5 * mean, 2 - 5 * mean, 1 - 5 * mean, 1 - 5 * mean, 1 - mean, -1 - mean]
    half = 1.96 * np.sqrt(sum(total**2 for total in sums)) / 22 * 3.18245 / 2.09302  # t with 3 and with 19
    assert paired_interval(changes, pictures) == pytest.approx((mean - half, mean + half), abs=5e-4)
    assert paired_interval(changes, ["a"] * 20) == (-1.0, 1.0)


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
