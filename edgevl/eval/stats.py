"""How sure a figure is: intervals of shares, and differences between two models on the same questions.

Questions about the same picture tend to go right or wrong together, so scores come with clusters: those of one
cluster are counted together where the noise is estimated, as if there were fewer questions.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

Z = 1.96
LEVEL = 0.05


def wilson(right: float, n: float, z: float = Z) -> tuple[float, float]:
    """Return the 95 % interval of a share of `right` in `n` (Wilson 1927)."""
    share, extra = right / n, z * z / n
    middle, half = share + extra / 2, z * math.sqrt(max(share * (1 - share), 0.0) / n + extra / (4 * n))
    return max((middle - half) / (1 + extra), 0.0), min((middle + half) / (1 + extra), 1.0)


def interval(scores: Sequence[float], clusters: Sequence[Hashable]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of at least one score between 0 and 1.

    Wilson's, with the number of scores divided by the design effect of the clusters (Kish 1965; Korn and Graubard
    1998, who do it with another interval). For scores between 0 and 1 it is on the safe side: their variance is at most
    that of right and wrong.
    """
    mean = math.fsum(scores) / len(scores)
    alone = math.fsum((score - mean) ** 2 for score in scores)
    together = math.fsum(total**2 for total in _sums([score - mean for score in scores], clusters))
    n_clusters = len(set(clusters))
    n = len(scores) / max(together / alone, 1.0) if alone > 0 and n_clusters > 1 else n_clusters
    return wilson(mean * n, n)


@dataclass(frozen=True)
class Difference:
    """The mean score of a first model minus that of a second one, with its 95 % interval, on `n` questions.

    `n_first` questions went better with the first, `n_second` with the second; `p` is McNemar's.
    """

    n: int
    n_first: int
    n_second: int
    value: float
    low: float
    high: float
    p: float

    @property
    def is_shown(self) -> bool:
        """Whether chance alone would make such a difference less than once in 20 times."""
        return self.p < LEVEL


def difference(first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable]) -> Difference:
    """Compare the scores of two models on the same questions, of which there is at least one."""
    changes = [a - b for a, b in zip(first, second, strict=True)]
    low, high = paired_interval(changes, clusters)
    return Difference(
        n=len(changes),
        n_first=sum(change > 0 for change in changes),
        n_second=sum(change < 0 for change in changes),
        value=math.fsum(changes) / len(changes),
        low=low,
        high=high,
        p=mcnemar(_sums(changes, clusters)),
    )


def paired_interval(changes: Sequence[float], clusters: Sequence[Hashable]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of differences between -1 and 1.

    Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired
    data": a question is added to either side, so that two models that agree everywhere are not equal for sure. Clusters
    enter through the variance of their sums.
    """
    n = len(changes) + 2
    mean = math.fsum(changes) / n
    sums = _sums([change - mean for change in changes], clusters)
    half = Z * math.sqrt(math.fsum(total**2 for total in (*sums, 1 - mean, -1 - mean))) / n
    return max(mean - half, -1.0), min(mean + half, 1.0)


def mcnemar(changes: Sequence[float]) -> float:
    """Return how often chance alone makes differences as large as these, given how large each is (two-sided).

    Where each is 1, 0 or -1, this is the exact test of McNemar 1947, "Note on the sampling error of the difference
    between correlated proportions". Sums over clusters take the same test of signs; fractions its normal limit.
    """
    sizes = [abs(change) for change in changes if change]
    total = abs(math.fsum(changes))
    if not sizes:
        return 1.0
    if any(size != round(size) for size in sizes):
        return math.erfc(total / math.sqrt(2 * math.fsum(size**2 for size in sizes)))
    chances = np.ones(1)  # [2 * sum + 1]: of each sum of signed sizes, from the lowest to the highest
    for size in map(int, sizes):
        gap = np.zeros(2 * size)
        chances = (np.concatenate([chances, gap]) + np.concatenate([gap, chances])) / 2
    beyond = chances[: (len(chances) - 1) // 2 - round(total) + 1].sum()
    return min(2 * float(beyond), 1.0)


def _sums(values: Sequence[float], clusters: Sequence[Hashable]) -> list[float]:
    """Return the sum of each cluster's values."""
    groups: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(value)
    return [math.fsum(group) for group in groups.values()]
