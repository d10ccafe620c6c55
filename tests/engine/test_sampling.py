from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from numpy.typing import NDArray

from edgevl.engine.sampling import Sampler, heat, min_p, penalise, softmax, top_k, top_p
from edgevl.types import SamplingParams

Scores = NDArray[np.float32]

scores = st_np.arrays(np.float32, st.integers(1, 60), elements=st.floats(-30, 30, width=32))


def random_scores(seed: int, n: int = 500) -> Scores:
    return np.random.default_rng(seed).normal(0, 4, n).astype(np.float32)


def drawn(params: SamplingParams, logits: Scores, n: int) -> list[int]:
    sampler = Sampler(params)
    return [sampler.choose(logits, ()) for _ in range(n)]


@pytest.fixture(scope="module")
def reference() -> Any:
    pytest.importorskip("torch")
    return pytest.importorskip("transformers")


class TestAgainstTransformers:
    """The filters keep the tokens that transformers' logits processors keep."""

    def kept(self, processor: Any, logits: Scores) -> NDArray[np.bool_]:
        import torch

        out = processor(torch.zeros((1, 1), dtype=torch.long), torch.from_numpy(logits)[None])
        return np.asarray(torch.isfinite(out[0]).numpy())

    @pytest.mark.parametrize("k", [1, 2, 50, 499, 500, 5000])
    def test_top_k(self, reference: Any, k: int) -> None:
        for seed in range(20):
            logits = random_scores(seed)
            np.testing.assert_array_equal(top_k(logits, k), self.kept(reference.TopKLogitsWarper(k), logits))

    @pytest.mark.parametrize("p", [0.01, 0.3, 0.7, 0.9, 0.99, 0.9999])
    def test_top_p(self, reference: Any, p: float) -> None:
        for seed in range(20):
            logits = random_scores(seed)
            np.testing.assert_array_equal(top_p(logits, p), self.kept(reference.TopPLogitsWarper(p), logits))

    @pytest.mark.parametrize("p", [1e-6, 0.05, 0.3, 0.9, 1.0])
    def test_min_p(self, reference: Any, p: float) -> None:
        for seed in range(20):
            logits = random_scores(seed)
            np.testing.assert_array_equal(min_p(logits, p), self.kept(reference.MinPLogitsWarper(p), logits))

    @pytest.mark.parametrize("penalty", [0.5, 1.1, 1.8])
    def test_repetition_penalty(self, reference: Any, penalty: float) -> None:
        import torch

        history = [3, 3, 7, 499, 0]
        for seed in range(5):
            logits = random_scores(seed)
            processor = reference.RepetitionPenaltyLogitsProcessor(penalty)
            expected = processor(torch.tensor([history]), torch.from_numpy(logits.copy())[None])[0].numpy()
            np.testing.assert_allclose(penalise(logits, history, penalty), expected, rtol=1e-6)

    def test_all_in_transformers_order(self, reference: Any) -> None:
        import torch

        history, params = [3, 3, 7], SamplingParams(temperature=0.7, top_k=40, top_p=0.9, min_p=0.02)
        warpers = [
            reference.TemperatureLogitsWarper(0.7),
            reference.TopKLogitsWarper(40),
            reference.TopPLogitsWarper(0.9),
            reference.MinPLogitsWarper(0.02),
        ]
        for seed in range(5):
            logits = random_scores(seed)
            expected = torch.from_numpy(logits)[None]
            for warper in warpers:
                expected = warper(torch.tensor([history]), expected)
            allowed = set(np.flatnonzero(torch.isfinite(expected[0]).numpy()).tolist())
            assert set(drawn(params, logits, 300)) <= allowed


@given(scores, st.integers(1, 70))
def test_top_k_keeps_the_k_highest_and_ties(logits: Scores, k: int) -> None:
    keep = top_k(logits, k)
    assert keep.sum() >= min(k, len(logits))
    assert not keep.all() or k >= len(logits) or logits.min() == np.sort(logits)[-k]
    if not keep.all():
        assert logits[keep].min() > logits[~keep].max()


@given(scores, st.floats(0.001, 0.999))
def test_top_p_keeps_the_fewest_that_reach_p(logits: Scores, p: float) -> None:
    keep = top_p(logits, p)
    probabilities = softmax(logits)
    assert probabilities[keep].sum() >= p - 1e-9
    assert probabilities[keep].sum() - probabilities[keep].min() < p + 1e-9
    assert keep[logits.argmax()]


@given(scores, st.floats(0.001, 1))
def test_min_p_keeps_by_share_of_the_highest(logits: Scores, p: float) -> None:
    keep = min_p(logits, p)
    probabilities = softmax(logits)
    assert keep[logits.argmax()]
    assert (probabilities[keep] >= p * probabilities.max() * (1 - 1e-4)).all()
    assert (probabilities[~keep] <= p * probabilities.max() * (1 + 1e-4)).all()


@pytest.mark.parametrize("keep", [top_k(random_scores(1), 0), top_p(random_scores(1), 1.0), min_p(random_scores(1), 0)])
def test_neutral_values_switch_a_filter_off(keep: NDArray[np.bool_]) -> None:
    assert keep.all()


def test_penalty_divides_positive_and_multiplies_negative_scores_once() -> None:
    logits = np.array([2, -2, 0, 3], np.float32)
    np.testing.assert_array_equal(penalise(logits, [0, 1, 1, 2], 2.0), np.array([1, -4, 0, 3], np.float32))
    np.testing.assert_array_equal(logits, np.array([2, -2, 0, 3], np.float32))  # the caller's array is as it was


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("penalty", [0.01, 100.0])
def test_a_penalty_keeps_scores_finite(penalty: float) -> None:
    largest = np.finfo(np.float32).max
    logits = np.array([largest, 1e37, -largest, -1e38, 1], np.float32)
    assert np.isfinite(penalise(logits, range(5), penalty)).all()
    sampler = Sampler(SamplingParams(temperature=1, repetition_penalty=penalty, seed=0))
    assert 0 <= sampler.choose(logits, range(5)) < 5


def test_no_penalty_is_no_copy() -> None:
    logits = random_scores(0)
    assert penalise(logits, [1, 2], 1.0) is logits
    assert penalise(logits, [], 1.5) is logits


def test_softmax_is_a_distribution_also_far_from_zero() -> None:
    np.testing.assert_allclose(softmax(np.array([0, 0], np.float32)), [0.5, 0.5])
    np.testing.assert_allclose(softmax(np.array([1e30, 0, -np.inf], np.float32)), [1, 0, 0])
    np.testing.assert_allclose(softmax(np.array([-1000, -1000 + np.log(3)], np.float32)), [0.25, 0.75], rtol=1e-3)


def test_temperature_zero_is_the_highest_score_after_the_penalty() -> None:
    logits = np.array([1, 5, 4], np.float32)
    assert Sampler(SamplingParams()).choose(logits, ()) == 1
    assert Sampler(SamplingParams(repetition_penalty=2.0)).choose(logits, [1]) == 2
    assert Sampler(SamplingParams(repetition_penalty=2.0)).choose(logits, ()) == 1


@pytest.mark.parametrize("temperature", [1e-300, 1e-40, 1e-9])
def test_a_very_low_temperature_is_greedy(temperature: float) -> None:
    logits = random_scores(3)
    assert drawn(SamplingParams(temperature=temperature, seed=0), logits, 5) == [int(logits.argmax())] * 5


def test_a_very_high_temperature_is_uniform() -> None:
    counts = np.bincount(drawn(SamplingParams(temperature=1e30, seed=0), random_scores(3, 4), 2000), minlength=4)
    assert (np.abs(counts - 500) < 100).all()


def test_a_vanishing_min_p_keeps_all() -> None:
    assert min_p(random_scores(0), 1e-300).all()


def test_heat_divides_up_to_a_constant() -> None:
    heated = heat(np.array([1, 2, 4], np.float32), 0.5)
    np.testing.assert_array_equal(heated - heated[0], np.array([0, 2, 6], np.float32))


def test_draws_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.1, 0.2, 0.7], np.float32))
    counts = np.bincount(drawn(SamplingParams(temperature=1.0, seed=1), logits, 5000), minlength=3) / 5000
    np.testing.assert_allclose(counts, [0.1, 0.2, 0.7], atol=0.03)


def test_the_same_seed_draws_the_same_tokens() -> None:
    logits, params = random_scores(5), SamplingParams(temperature=1.5, seed=42)
    assert drawn(params, logits, 50) == drawn(params, logits, 50)
    assert drawn(params, logits, 50) != drawn(SamplingParams(temperature=1.5, seed=43), logits, 50)


def test_without_a_seed_draws_differ() -> None:
    logits, params = np.zeros(1000, np.float32), SamplingParams(temperature=1.0)
    assert drawn(params, logits, 20) != drawn(params, logits, 20)


@settings(max_examples=200)
@given(
    scores,
    st.builds(
        SamplingParams,
        temperature=st.floats(0, 10),
        top_k=st.integers(0, 80),
        top_p=st.floats(0, 1, exclude_min=True),
        min_p=st.floats(0, 1),
        repetition_penalty=st.floats(0.01, 100),
        seed=st.integers(0, 2**64),
    ),
    st.lists(st.integers(0, 59)),
)
def test_every_setting_chooses_a_token(logits: Scores, params: SamplingParams, history: list[int]) -> None:
    seen = [token % len(logits) for token in history]
    assert 0 <= Sampler(params).choose(logits, seen) < len(logits)
