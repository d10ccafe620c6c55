from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgevl.engine.lookup import SIZES, Lookup, Steps

VOCAB = 4


def followed(text: Sequence[int], token_ids: Sequence[int]) -> Lookup:
    lookup = Lookup(text)
    for token in token_ids:
        lookup.add(token)
    return lookup


def test_what_followed_the_last_three_tokens_is_proposed_once_it_came_true() -> None:
    text = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert followed(text, [1, 2, 3]).propose(7) == []
    assert followed(text, [1, 2, 3, 4]).propose(7) == []
    assert followed(text, [1, 2, 3, 4, 5]).propose(7) == [6]
    assert followed(text, [1, 2, 3, 4, 5, 6, 7]).propose(7) == [8]
    assert followed([*text, *range(10, 20)], [*range(1, 10)]).propose(7) == [10, 11, 12]


def test_the_latest_occurrence_counts() -> None:
    assert followed([1, 2, 3, 4, 5, 6, 9, 1, 2, 3, 4, 5, 7, 9], [1, 2, 3, 4, 5]).propose(7) == [7]


def test_a_repeat_that_is_still_going_on_is_continued() -> None:
    lookup = followed([], [1, 2] * 20)
    assert lookup.propose(7) == [1, 2, 1]
    assert lookup.propose(2) == [1]
    assert lookup.propose(0) == []


def test_text_without_repeats_proposes_nothing() -> None:
    lookup = Lookup(range(50))
    for token in range(50, 100):
        lookup.add(token)
        assert lookup.propose(7) == []


def test_what_was_fed_in_vain_must_be_earned_again() -> None:
    lookup = followed([], [1, 2, 3, 4] * 8)
    assert lookup.credit == 3 * max(SIZES)
    for _ in range(3):
        lookup.waste(max(SIZES) - 1)
    assert (lookup.credit, lookup.propose(7)) == (0, [])


@given(st.lists(st.integers(0, 2), max_size=60))
def test_proposals_are_as_many_as_were_earned(token_ids: list[int]) -> None:
    lookup = Lookup([])
    for token in token_ids:
        lookup.add(token)
        proposed = lookup.propose(7)
        assert len(proposed) in (0, *SIZES)
        assert 2 * len(proposed) <= lookup.credit


class Sums:
    """A decoder whose scores are of all that it holds; it notes how many tokens each run takes."""

    n_at_once = 4

    def __init__(self, token_ids: Sequence[int], refused: Sequence[int] = ()) -> None:
        self.held, self.runs, self._refused = list(token_ids), list[int](), refused

    @property
    def n_past(self) -> int:
        return len(self.held)

    def extend(self, chunk: NDArray[Any]) -> bool:
        self.runs.append(len(chunk))
        self.held += chunk.tolist()
        return True

    def extend_each(self, token_ids: Sequence[int]) -> NDArray[np.float32] | None:
        if len(token_ids) in self._refused:
            return None
        self.runs.append(len(token_ids))
        rows = []
        for token in token_ids:
            self.held.append(token)
            rows.append(self.logits())
        return np.array(rows)

    def logits(self) -> NDArray[np.float32]:
        seed = sum(token * 3**place for place, token in enumerate(self.held[-4:]))
        return np.random.default_rng(seed).random(VOCAB, np.float32)

    def truncate(self, n: int) -> None:
        del self.held[n:]


class OneByOne(Sums):
    """The same without the means to be fed ahead."""

    extend_each = None  # type: ignore[assignment]


def walk(decoder: Sums, prompt: Sequence[int], n: int, other: Sequence[int]) -> tuple[list[int], NDArray[Any]]:
    """Choose `n` tokens, the best of the scores or what `other` says; return them and the scores of each."""
    steps, chosen, scores = Steps(decoder, prompt), list[int](), []  # type: ignore[arg-type]
    while len(chosen) < n:
        scores.append(steps.logits())
        token = (int(scores[-1].argmax()) + other[len(chosen) % len(other)]) % VOCAB
        chosen.append(token)
        if len(chosen) < n:
            steps.extend(token, n - len(chosen))
    steps.settle()
    return chosen, np.array(scores)


def test_no_more_are_fed_than_the_decoder_takes() -> None:
    decoder = Sums([])
    decoder.n_at_once = 2
    steps = Steps(decoder, [])  # type: ignore[arg-type]
    for place in range(60):
        steps.extend(place % 4, 60)
    assert set(decoder.runs) == {1, 2}


@given(
    st.lists(st.integers(0, VOCAB - 1), max_size=20),
    st.integers(1, 60),
    st.lists(st.integers(0, 1), min_size=1, max_size=9),
    st.sets(st.sampled_from([2, 4, 8])),
)
def test_tokens_and_scores_are_those_of_one_by_one(
    prompt: list[int], n: int, other: list[int], refused: set[int]
) -> None:
    ahead, alone = Sums(prompt, sorted(refused)), OneByOne(prompt)
    tokens, scores = walk(ahead, prompt, n, other)
    wanted, wanted_scores = walk(alone, prompt, n, other)
    assert tokens == wanted
    assert np.array_equal(scores, wanted_scores)
    assert ahead.held == alone.held
    assert max(alone.runs, default=1) == 1


def test_a_text_that_repeats_takes_far_fewer_runs() -> None:
    decoder = Sums([])
    steps = Steps(decoder, [])  # type: ignore[arg-type]
    for n_more, token in zip(range(200, 0, -1), [3, 1, 4, 1, 5, 9, 2, 6] * 25, strict=True):
        steps.extend(token, n_more)
    assert len(decoder.runs) < 80


@pytest.mark.parametrize("n", range(100, 109))
def test_no_more_is_fed_than_can_be_chosen(n: int) -> None:
    decoder = Sums([])
    walk(decoder, [], n, [0])  # one token again and again: every proposal comes true
    assert sum(decoder.runs) == len(decoder.held) == n - 1
    assert len(decoder.runs) < n / 2
