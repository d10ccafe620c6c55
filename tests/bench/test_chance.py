"""Chances that hold for all figures together: exact for few rounds, drawn for many."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from edgevl.bench import chance

OLD, NEW = [1.0, 1.1, 1.2, 1.3], [2.0, 2.1, 2.2, 2.3, 2.4]
"""Completely apart, with unequal numbers of rounds: no other split parts them as far."""


def test_the_furthest_split_of_all_is_as_rare_as_it_can_be() -> None:
    assert chance.of_any([(OLD, NEW)]) == [pytest.approx(1 / 126)]
    assert chance.of_any([(NEW, OLD)]) == [pytest.approx(1 / 126)]


def test_what_does_not_differ_is_certain() -> None:
    assert chance.of_any([([1.0] * 4, [1.0] * 4)]) == [1.0]
    assert chance.of_any([]) == []


def test_it_is_the_share_of_splits_in_which_any_figure_parts_as_far() -> None:
    rng = np.random.default_rng(0)
    figures = [(list(np.exp(rng.normal(0, 0.1, 4))), list(np.exp(rng.normal(0, 0.1, 5)))) for _ in range(3)]

    def student(figure: chance.Samples, chosen: tuple[int, ...]) -> float:
        logs = np.log([*figure[0], *figure[1]])
        new, old = logs[list(chosen)], np.delete(logs, chosen)
        within = ((new - new.mean()) ** 2).sum() + ((old - old.mean()) ** 2).sum()
        return float(abs(new.mean() - old.mean()) / np.sqrt(within / 7 * (1 / len(new) + 1 / len(old))))

    furthest = [max(student(figure, chosen) for figure in figures) for chosen in combinations(range(9), 5)]
    for figure, found in zip(figures, chance.of_any(figures), strict=True):
        as_far = [value >= student(figure, (4, 5, 6, 7, 8)) - 1e-9 for value in furthest]
        assert found == pytest.approx(np.mean(as_far))


def test_figures_of_other_rounds_make_it_as_many_times_likelier() -> None:
    alone = chance.of_any([(OLD, NEW)])[0]
    together = chance.of_any([(OLD, NEW), ([1.0, 1.01, 1.02, 1.03], [1.0, 1.01, 1.02, 1.04])])
    assert together[0] == pytest.approx(2 * alone)
    assert together[1] == 1.0


def test_many_rounds_are_drawn_and_the_same_each_time() -> None:
    rng = np.random.default_rng(0)
    old, new = (list(np.exp(rng.normal(shift, 0.1, 15))) for shift in (0.0, 0.1))
    first, second = chance.of_any([(old, new)]), chance.of_any([(old, new)])
    assert first == second
    assert 0 < first[0] < 0.05
    assert chance.of_any([(OLD * 4, NEW * 4)])[0] == 1 / chance.MAX_SPLITS
