"""Has it become slower? Two measurements side by side, with the noise of both taken into account.

Each figure's rounds are compared by ranks, which asks nothing of their distribution: the estimate is the median of all
ratios between a new and an old round, and its 95 % interval comes from the null distribution of Wilcoxon's rank sum
(Hodges and Lehmann 1963; Bauer 1972, "Constructing confidence sets using rank statistics"). An interval is a figure's
own; a verdict allows for how many figures there are (`edgevl.bench.chance`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np

from edgevl.bench import chance
from edgevl.bench.result import STAGES, Place, Result, Row, Size, Stage, pixels, threads_of, title
from edgevl.machine import UNKNOWN

LEVEL = 0.95
MAX_CHANCE = 0.05
"""How likely it may be that a comparison tells of any change though nothing has changed."""
MIN_CHANGE = 0.03
"""Smaller changes are not told: two runs of one version differ that much by where their memory happened to lie."""
MIN_MEMORY_CHANGE = 0.10
"""The same for memory that was measured too rarely for an interval: it hardly differs between runs."""

N_MANY = 50
"""Rounds on either side from which on ranks are not counted: the normal distribution is off by one of them at most."""

Change = Literal["slower", "faster", "more memory", "less memory", "no difference", "too few rounds"]


@dataclass(frozen=True)
class Interval:
    """The ratio of new values to old ones: the estimate and its 95 % interval."""

    low: float
    ratio: float
    high: float

    @property
    def is_apart(self) -> bool:
        """Whether all of it lies further than `MIN_CHANGE` on one side of 1."""
        return self.low > 1 + MIN_CHANGE or self.high < 1 / (1 + MIN_CHANGE)


@dataclass(frozen=True)
class _Figure:
    """What both measured: where, what, and the rounds of either."""

    row: Row
    stage: Stage
    old: list[float]
    new: list[float]


@dataclass(frozen=True)
class Verdict:
    """What became of one figure; `interval` is None where there were too few rounds to tell."""

    size: Size | None
    threads: int
    stage: Stage
    ratio: float
    interval: Interval | None
    change: Change

    @property
    def is_change(self) -> bool:
        """Whether it became slower or faster, or takes more or less memory."""
        return self.change not in ("no difference", "too few rounds")


@dataclass(frozen=True)
class Comparison:
    """All verdicts on what both measured, and what a reader must know first, a sentence each."""

    notes: list[str]
    verdicts: list[Verdict]

    @property
    def is_worse(self) -> bool:
        """Whether anything became slower or takes more memory."""
        return any(verdict.change in ("slower", "more memory") for verdict in self.verdicts)

    @property
    def n_judged(self) -> int:
        """How many figures were measured in rounds enough for a verdict."""
        return sum(verdict.interval is not None for verdict in self.verdicts)

    @property
    def summary(self) -> str:
        """Say in one line how many figures changed in which direction."""
        counts: dict[str, int] = {}
        for verdict in self.verdicts:
            counts[verdict.change] = counts.get(verdict.change, 0) + 1
        if not counts:
            return "nothing to compare: no figure was measured by both"
        order = ("slower", "faster", "more memory", "less memory", "no difference", "too few rounds")
        return ", ".join(f"{change} in {counts[change]}" for change in order if change in counts)


def compare(old: Result, new: Result) -> Comparison:
    """Compare two measurements, place by place (size and threads) and stage by stage."""
    before = {row.place: row for row in old.rows}
    pairs = [(before[row.place], row) for row in new.rows if row.place in before]
    figures = [
        _Figure(row, stage, old_row.values[stage.key], row.values[stage.key])
        for old_row, row in pairs
        for stage in STAGES
        if stage.key in old_row.values and stage.key in row.values
    ]
    return Comparison([*_differences(old, new), *_work(pairs), *_missing(old, new)], _verdicts(figures))


def ratio_interval(old: list[float], new: list[float]) -> Interval | None:
    """Estimate by which factor `new` differs from `old`; None where the rounds are too few for a 95 % interval.

    Four rounds on either side are enough.
    """
    skip = _n_beyond(len(old), len(new))
    if skip == 0:
        return None
    ratios = np.sort(np.subtract.outer(np.log(new), np.log(old)), axis=None)
    low, middle, high = ratios[skip - 1], np.median(ratios), ratios[-skip]
    return Interval(math.exp(low), math.exp(middle), math.exp(high))


@lru_cache(maxsize=64)
def _n_beyond(n: int, m: int) -> int:
    """Return how many of the sorted n * m ratios lie outside the interval on each side, plus one; 0: there is none.

    The counts of rank sums are the coefficients of the Gaussian binomial (n + m over n). With many rounds on either
    side the sum is as good as normal, and counting would take minutes.
    """
    n, m = sorted((n, m))
    if n >= N_MANY:
        spread = math.sqrt(n * m * (n + m + 1) / 12)
        return math.floor(n * m / 2 + NormalDist().inv_cdf((1 - LEVEL) / 2) * spread - 0.5) + 1
    counts = [1] + [0] * (n * m)
    for i in range(1, n + 1):
        for j in range(n * m, m + i - 1, -1):
            counts[j] -= counts[j - m - i]
        for j in range(i, n * m + 1):
            counts[j] += counts[j - i]
    allowed, beyond, total = (1 - LEVEL) / 2 * math.comb(n + m, n), 0, 0
    for count in counts:
        total += count
        if total > allowed:
            break
        beyond += 1
    return beyond


def _verdicts(figures: Sequence[_Figure]) -> list[Verdict]:
    """Judge all figures together; those with too few rounds for an interval are left out of that."""
    intervals = [ratio_interval(figure.old, figure.new) for figure in figures]
    judged = [figure for figure, interval in zip(figures, intervals, strict=True) if interval is not None]
    chances = iter(chance.of_any([(figure.old, figure.new) for figure in judged]))
    verdicts = []
    for figure, interval in zip(figures, intervals, strict=True):
        ratio = interval.ratio if interval else float(np.median(figure.new) / np.median(figure.old))
        is_change = _is_change(figure.stage, ratio, interval, next(chances) if interval else 1.0)
        change = _change(figure.stage, ratio, interval, is_change)
        verdicts.append(Verdict(figure.row.size, figure.row.threads, figure.stage, ratio, interval, change))
    return verdicts


def _is_change(stage: Stage, ratio: float, interval: Interval | None, chance_of_any: float) -> bool:
    if interval is None:
        return stage.rising == "more" and abs(math.log(ratio)) > math.log(1 + MIN_MEMORY_CHANGE)
    return interval.is_apart and chance_of_any <= MAX_CHANCE


def _change(stage: Stage, ratio: float, interval: Interval | None, is_change: bool) -> Change:
    is_memory = stage.rising == "more"
    if interval is None and not is_memory:
        return "too few rounds"
    if not is_change:
        return "no difference"
    if is_memory:
        return "more memory" if ratio > 1 else "less memory"
    return "slower" if (ratio > 1) == (stage.rising == "slower") else "faster"


def _differences(old: Result, new: Result) -> list[str]:
    """Say where the two did not measure the same thing."""
    notes = []
    was, now = dict(old.machine.rows()), dict(new.machine.rows())
    hardware = ("processor", "features", "physical cores", "memory")
    if changed := [name for name in hardware if was.get(name) != now.get(name)]:
        told = "; ".join(f"{name}: {was.get(name)} before, {now.get(name)} now" for name in changed)
        notes.append(f"a different machine, so this says nothing about a change of the software ({told})")
    if old.model_id != new.model_id:
        names = old.model if old.model == new.model else f"{old.model} before, {new.model} now"
        notes.append(f"a different model, so this says nothing about a change of the software ({names})")
    if old.picture != new.picture:
        notes.append("a different picture")
    rest = [name for name in was | now if name not in hardware]
    versions = [(name, was.get(name, UNKNOWN), now.get(name, UNKNOWN)) for name in rest]
    changes = [f"{name} {before} -> {after}" for name, before, after in versions if before != after]
    if changes:
        notes.append(f"changed since then: {', '.join(changes)}")
    return [*notes, *_pace(old, new)]


def _pace(old: Result, new: Result) -> list[str]:
    """Say when the machine itself was at another pace, as a computation shows that no version of edgevl changes."""
    interval = ratio_interval(old.yardstick_s, new.yardstick_s)
    if interval is None or not interval.is_apart:
        return []
    word = "slower" if interval.ratio > 1 else "faster"
    return [
        f"the machine itself is {word} than then: a fixed computation takes {interval.ratio:.2f} times as long "
        "(other programs, heat or power); read the verdicts with that in mind"
    ]


def _work(pairs: list[tuple[Row, Row]]) -> list[str]:
    if all((old.n_tiles, old.n_tokens) == (new.n_tiles, new.n_tokens) for old, new in pairs):
        return []
    return ["the prompts differ: pictures of the same size are cut into other tiles or take other tokens than then"]


def _missing(old: Result, new: Result) -> list[str]:
    """Name the places that only one measured, and the figures of places that both did."""
    before, after = ({row.place: row for row in result.rows} for result in (old, new))
    notes = []
    for when, ours, others in (("then", before, after), ("now", after, before)):
        both = [(row.values, others[place].values) for place, row in ours.items() if place in others]
        keys = dict.fromkeys(key for values, other in both for key in values if key not in other)
        names = [title(key) for key in keys]
        names += [_place(place) for place in sorted(ours.keys() - others.keys(), key=_order)]
        notes += [f"only {when}: {', '.join(names)}"] if names else []
    return notes


def _place(place: Place) -> str:
    size, threads = place
    return f"{pixels(size)} with {threads_of(threads)}"


def _order(place: Place) -> tuple[Size, int]:
    return place[0] or (0, 0), place[1]
