"""From scored answers to figures: what counts as one, the mean with its interval, and the same for every category."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgevl.eval.item import Item, Problem
from edgevl.eval.stats import Difference, difference, interval, mean_interval


@dataclass(frozen=True)
class Answered:
    """An answer to an item, with its score. `images` are the content ids of the pictures that were shown.

    `refused` says why the model could not be asked at all (too long a prompt); that scores 0.
    """

    item: Item
    text: str
    score: float
    images: tuple[str, ...] = ()
    finish_reason: str = "stop"
    refused: str = ""


@dataclass(frozen=True)
class Unit:
    """What a figure counts as one: an answer, or a group of answers. Units of a cluster are not independent."""

    id: str
    score: float
    cluster: str
    categories: Mapping[str, str]


Sizes = Mapping[str, int]
"""How many items of the data set each group has, asked or not."""
Counting = Callable[[Sequence[Answered], Sizes], list[Unit]]


@dataclass(frozen=True)
class Figure:
    """A mean score between 0 and 1 over `n` units, with its 95 % interval."""

    title: str
    value: float
    low: float
    high: float
    n: int


def every_answer(answers: Sequence[Answered], sizes: Sizes) -> list[Unit]:
    """Count each answer."""
    return [Unit(one.item.id, one.score, _cluster(one), one.item.categories) for one in answers]


def whole_groups(answers: Sequence[Answered], sizes: Sizes) -> list[Unit]:
    """Count each group of which all items were asked: its score is that of its worst answer."""
    groups: dict[str, list[Answered]] = {}
    for one in answers:
        groups.setdefault(one.item.group, []).append(one)
    return [
        Unit(group, min(one.score for one in found), _cluster(found[0]), found[0].item.categories)
        for group, found in groups.items()
        if len(found) == sizes[group]
    ]


def first_of_groups(answers: Sequence[Answered], sizes: Sizes) -> list[Unit]:
    """Count each answer to the item that its group is named after."""
    return every_answer([one for one in answers if one.item.id == one.item.group], sizes)


def figure(title: str, units: Sequence[Unit]) -> Figure | None:
    """Return the mean of units with its interval; None where there are none."""
    if not units:
        return None
    scores = [unit.score for unit in units]
    low, high = interval(scores, [unit.cluster for unit in units])
    return Figure(title, sum(scores) / len(scores), low, high, len(scores))


def mean(title: str, parts: Sequence[Figure]) -> Figure | None:
    """Return the plain mean of figures whose units are independent of one another, with its interval; None of none."""
    if not parts:
        return None
    low, high = mean_interval([(one.value, one.low, one.high) for one in parts])
    return Figure(title, math.fsum(one.value for one in parts) / len(parts), low, high, len(parts))


def by_category(units: Sequence[Unit]) -> dict[str, list[Figure]]:
    """Return, for every kind of category, a figure per category, in the order of their appearance."""
    found: dict[str, list[Figure]] = {}
    for (kind, category), group in _of_categories(units).items():
        if (one := figure(category, group)) is not None:
            found.setdefault(kind, []).append(one)
    return found


def compare(first: Sequence[Unit], second: Sequence[Unit]) -> Difference | None:
    """Compare two models on the units that both have; None where there are none."""
    others = {unit.id: unit.score for unit in second}
    both = [unit for unit in first if unit.id in others]
    if not both:
        return None
    return difference(
        [unit.score for unit in both], [others[unit.id] for unit in both], [unit.cluster for unit in both]
    )


def compare_by_category(first: Sequence[Unit], second: Sequence[Unit]) -> dict[tuple[str, str], Difference]:
    """Compare two models on every category, (kind, category), of which both have units.

    Each is told for itself: of many categories, one in twenty shows a difference by chance alone.
    """
    compared = ((place, compare(group, second)) for place, group in _of_categories(first).items())
    return {place: one for place, one in compared if one is not None}


def _of_categories(units: Sequence[Unit]) -> dict[tuple[str, str], list[Unit]]:
    """Return the units of every (kind, category), kind by kind in the order of their appearance."""
    found: dict[str, dict[str, list[Unit]]] = {}
    for unit in units:
        for kind, category in unit.categories.items():
            found.setdefault(kind, {}).setdefault(category, []).append(unit)
    return {(kind, category): group for kind, groups in found.items() for category, group in groups.items()}


def commonest(items: Sequence[Item]) -> str:
    """Return the right answer that most items share; of several the first."""
    return Counter(item.answers[0] for item in items).most_common(1)[0][0]


def group_sizes(items: Sequence[Item], problems: Sequence[Problem]) -> Sizes:
    """Return how many items each group has, those included that cannot be asked."""
    return Counter([item.group for item in items] + [problem.group for problem in problems])


def _cluster(answer: Answered) -> str:
    """Return what an answer hangs together with: its cluster, else its pictures, else nothing."""
    return answer.item.cluster or " ".join(answer.images) or answer.item.id
