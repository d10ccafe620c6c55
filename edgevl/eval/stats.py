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
_T = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764}
"""Student's t for few degrees of freedom, where the series of `t_quantile` is not exact enough."""


def wilson(right: float, n: float, z: float = Z) -> tuple[float, float]:
    """Return the 95 % interval of a share of `right` in `n` (Wilson 1927)."""
    share, extra = right / n, z * z / n
    middle, half = share + extra / 2, z * math.sqrt(max(share * (1 - share), 0.0) / n + extra / (4 * n))
    return max((middle - half) / (1 + extra), 0.0), min((middle + half) / (1 + extra), 1.0)


def interval(scores: Sequence[float], clusters: Sequence[Hashable]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of at least one score between 0 and 1.

    Wilson's for the effective number of scores of Korn and Graubard 1998, "Confidence intervals for proportions with
    small expected number of positive counts estimated from survey data" (they put it into Clopper and Pearson's): the
    number of scores, divided by the design effect of the clusters (Kish 1965) and by the square of what Student's t
    adds for few clusters. Where each score is a cluster of its own that is the number of scores; of several scores in
    one cluster nothing can be told. For scores between 0 and 1 it is on the safe side: their variance is at most that
    of right and wrong.
    """
    n = len(scores) / _design_effect(scores, clusters) / _widening(clusters) ** 2
    return wilson(math.fsum(scores) / len(scores) * n, n) if n > 0 else (0.0, 1.0)


def _design_effect(scores: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Return how many times the mean's variance is that of independent scores; at least 1.

    It is 1 where no score varies, which is what it comes to where one score alone differs: nothing is known of it then.
    """
    n, n_clusters = len(scores), len(set(clusters))
    mean = math.fsum(scores) / n
    deviations = [score - mean for score in scores]
    alone = math.fsum(deviation**2 for deviation in deviations)
    if alone == 0 or n_clusters in (1, n):
        return 1.0
    together = math.fsum(total**2 for total in _sums(deviations, clusters))
    return max(together / (n_clusters - 1) * n_clusters / (alone / (n - 1) * n), 1.0)


def _widening(clusters: Sequence[Hashable]) -> float:
    """Return Student's t for the clusters, by that for as many independent scores; infinite for a single cluster."""
    n, n_clusters = len(clusters), len(set(clusters))
    if n_clusters == n:
        return 1.0
    return t_quantile(n_clusters - 1) / t_quantile(n - 1) if n_clusters > 1 else math.inf


def t_quantile(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t, to three places.

    Source: Abramowitz and Stegun 1964, "Handbook of Mathematical Functions", 26.7.5; a table for 1 to 4 degrees.
    """
    if degrees in _T:
        return _T[degrees]
    z = 1.959964
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / degrees**power for power, term in enumerate(terms, start=1))


def mean_interval(shares: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Return the 95 % interval of the plain mean of independent shares, each with its own: (share, low, high).

    Zou, Huang and Zhang 2009, "A note on confidence interval estimation for a linear function of binomial
    proportions": each end lies as far from the mean as the root of the sum of the squares of the shares' distances.
    """
    n = len(shares)
    mean = math.fsum(share for share, _, _ in shares) / n
    below = math.sqrt(math.fsum((share - low) ** 2 for share, low, _ in shares)) / n
    above = math.sqrt(math.fsum((high - share) ** 2 for share, _, high in shares)) / n
    return max(mean - below, 0.0), min(mean + above, 1.0)


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
    enter through the variance of their sums, and few of them through Student's t, as in `interval`.
    """
    n = len(changes) + 2
    mean = math.fsum(changes) / n
    sums = _sums([change - mean for change in changes], clusters)
    half = Z * _widening(clusters) * math.sqrt(math.fsum(total**2 for total in (*sums, 1 - mean, -1 - mean))) / n
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
