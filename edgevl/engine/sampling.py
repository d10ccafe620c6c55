"""From scores to a token: penalties, filters and the draw.

Order and definitions follow transformers' logits processors: repetition penalty, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgevl.types import SamplingParams

Logits = NDArray[np.float32]


class Sampler:
    """Chooses tokens for one answer; the same seed and scores give the same tokens."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params

    @cached_property
    def _random(self) -> np.random.Generator:
        """Made for the first draw: importing numpy's module takes a while, and greedy answers do not need it."""
        return np.random.default_rng(self._params.seed)

    def choose(self, logits: Logits, history: Sequence[int]) -> int:
        """Return the next token for scores [vocab]; `history` are the text tokens so far, prompt included."""
        params = self._params
        logits = penalise(logits, history, params.repetition_penalty)
        if params.temperature == 0:
            return int(logits.argmax())
        logits = heat(logits, params.temperature)
        logits = _drop(logits, top_k(logits, params.top_k))
        logits = _drop(logits, top_p(logits, params.top_p))
        logits = _drop(logits, min_p(logits, params.min_p))
        return int(self._random.choice(len(logits), p=softmax(logits)))


def heat(logits: Logits, temperature: float) -> Logits:
    """Divide scores by `temperature`, above 0; measured from the highest, so that none can overflow."""
    with np.errstate(over="ignore"):  # far below the highest at a low temperature: minus infinity, as it should be
        return np.asarray((logits - logits.max()).astype(np.float64) / temperature, np.float32)


def softmax(logits: Logits) -> NDArray[np.float64]:
    """Return probabilities [vocab], float64 so that they sum to 1 well enough for a draw."""
    exps = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(exps / exps.sum())


def penalise(logits: Logits, history: Sequence[int], penalty: float) -> Logits:
    """Divide positive and multiply negative scores of tokens seen by `penalty` (Keskar et al. 2019, "CTRL")."""
    if penalty == 1 or not history:
        return logits
    seen = np.unique(np.asarray(history, np.int64))
    scores, largest = logits[seen].astype(np.float64), np.finfo(np.float32).max
    logits = logits.copy()
    logits[seen] = np.where(scores > 0, scores / penalty, scores * penalty).clip(-largest, largest)
    return logits


def top_k(logits: Logits, k: int) -> NDArray[np.bool_]:
    """Keep the `k` highest scores (Fan et al. 2018); 0 keeps all."""
    if k == 0 or k >= len(logits):
        return np.ones(len(logits), np.bool_)
    return np.asarray(logits >= np.partition(logits, -k)[-k])


def top_p(logits: Logits, p: float) -> NDArray[np.bool_]:
    """Keep the fewest tokens whose probabilities reach `p` (Holtzman et al. 2020, nucleus sampling)."""
    if p >= 1:
        return np.ones(len(logits), np.bool_)
    order = np.argsort(-logits, kind="stable")
    before = np.cumsum(softmax(logits)[order])
    keep = np.zeros(len(logits), np.bool_)
    keep[order[: int(np.searchsorted(before, p)) + 1]] = True
    return keep


def min_p(logits: Logits, p: float) -> NDArray[np.bool_]:
    """Keep tokens with at least `p` times the highest probability (Nguyen et al. 2024, min-p sampling)."""
    if p == 0:
        return np.ones(len(logits), np.bool_)
    return np.asarray(logits >= logits.max() + math.log(p))


def _drop(logits: Logits, keep: NDArray[np.bool_]) -> Logits:
    return np.where(keep, logits, np.float32(-np.inf))
