"""How often chance alone makes a difference as large as the largest of many, for a verdict on all figures together.

One by one at 95 %, two or three of 60 figures would count as changed where nothing has. Here the chance is at most
5 % that any does: Westfall and Young 1993, "Resampling-Based Multiple Testing", the single-step maxT. Had nothing
changed, any other rounds could as well have been the new ones; what counts is how far the furthest of all figures then
lies from the old rounds. Figures of one round go together, so that a moment that slowed all of them counts once.

Holm's correction of ranks needs more rounds: with five before and five after, the least chance is 1 in 126, and one of
60 figures would need 1 in 1,200.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

MAX_SPLITS = 20_000
"""Of more ways to choose the new rounds, so many are drawn."""
_EQUAL = 1e-9  # differences that are the same but for rounding

Samples = tuple[Sequence[float], Sequence[float]]


def of_any(figures: Sequence[Samples]) -> list[float]:
    """Return for each figure's (old, new) rounds the chance that unchanged ones, or any of the others, part as far.

    All values are above 0. Figures with equally many rounds on either side are taken to be of the same rounds.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, (old, new) in enumerate(figures):
        groups.setdefault((len(old), len(new)), []).append(index)
    chances = [1.0] * len(figures)
    for indices in groups.values():
        for index, chance in zip(indices, _of_same_rounds([figures[i] for i in indices]), strict=True):
            chances[index] = min(chance * len(groups), 1.0)  # Bonferroni
    return chances


def _of_same_rounds(figures: Sequence[Samples]) -> list[float]:
    """Compare by Student's t of logarithms, which rises with their correlation with being new: that is quicker."""
    logs = np.log([[*old, *new] for old, new in figures])  # [figures, rounds]
    logs -= logs.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(logs, axis=1, keepdims=True)
    units = np.divide(logs, lengths, out=np.zeros_like(logs), where=lengths > _EQUAL)
    old, new = figures[0]
    apart = np.abs(_splits(len(old), len(new)) @ units.T)  # [splits, figures]
    furthest = apart.max(axis=1)
    return [float((furthest >= found - _EQUAL).mean()) for found in apart[0]]


@lru_cache(maxsize=8)
def _splits(n_old: int, n_new: int) -> NDArray[np.float64]:
    """Return ways to choose the new rounds, 1 for each one that is [splits, rounds]; the first is the true one."""
    n = n_old + n_new
    true = np.repeat([0.0, 1.0], [n_old, n_new])
    if math.comb(n, n_new) > MAX_SPLITS:
        splits = np.random.default_rng(0).permuted(np.tile(true, (MAX_SPLITS, 1)), axis=1)
        splits[0] = true
        return splits
    chosen = np.array(list(combinations(reversed(range(n)), n_new)))
    splits = np.zeros((len(chosen), n))
    np.put_along_axis(splits, chosen, 1.0, axis=1)
    return splits
