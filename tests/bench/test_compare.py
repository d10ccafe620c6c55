"""Verdicts: real changes are found, noise is not, and what cannot be compared is said."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevl.bench.compare import Comparison, _n_beyond, compare, ratio_interval
from edgevl.bench.result import Result, Row
from tests.bench.results import MACHINE, TYPICAL, result, row, row_of_any


def changes(comparison: Comparison) -> dict[str, str]:
    return {verdict.stage.key: verdict.change for verdict in comparison.verdicts}


def test_the_same_twice_is_no_difference() -> None:
    found = compare(result(), result())
    assert set(changes(found).values()) == {"no difference"}
    assert found.notes == []
    assert found.summary == "no difference in 7"


def test_noise_is_no_difference() -> None:
    verdicts = [v.change for seed in range(20) for v in compare(result(), result([row(seed=seed + 1)])).verdicts]
    assert verdicts.count("no difference") / len(verdicts) > 0.97


def noisy(rng: np.random.Generator, n_rounds: int = 5) -> Result:
    """Return a result of 56 figures with 15 % of noise, half of it common to all figures of a round."""
    moments = rng.normal(0, 0.1, n_rounds)
    rows = []
    for side in range(64, 64 * 9, 64):
        noise = {key: np.exp(rng.normal(0, 0.1, n_rounds) + moments) for key in TYPICAL}
        values = {key: list(value * noise[key]) for key, value in TYPICAL.items()}
        rows.append(Row((side, side), 2, 5, 92, values))
    return result(rows)


def test_at_most_one_of_20_comparisons_tells_of_a_change_where_nothing_has_changed() -> None:
    rng = np.random.default_rng(0)
    compared = [compare(noisy(rng), noisy(rng)).verdicts for _ in range(200)]
    one_by_one = [any(v.interval is not None and v.interval.is_apart for v in verdicts) for verdicts in compared]
    together = [any(verdict.is_change for verdict in verdicts) for verdicts in compared]
    assert np.mean(one_by_one) > 0.2, "else there is nothing to correct"
    assert np.mean(together) < 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200), "beyond what 200 comparisons say of 5 %"


@pytest.mark.parametrize("n_rounds", [4, 5, 9])
def test_a_change_of_a_fifth_in_one_of_56_figures_is_found(n_rounds: int) -> None:
    sides = range(64, 64 * 9, 64)
    for seed in range(5):
        old = result([row((side, side), n=n_rounds, seed=2 * seed) for side in sides])
        new = result([row((side, side), n=n_rounds, seed=2 * seed + 1) for side in sides])
        new.rows[3].values["encode_s"] = [1.2 * value for value in new.rows[3].values["encode_s"]]
        changed = [verdict for verdict in compare(old, new).verdicts if verdict.is_change]
        assert [(v.size, v.stage.key, v.change) for v in changed] == [((256, 256), "encode_s", "slower")]


def test_changes_are_told_with_their_direction() -> None:
    now = row(
        seed=1,
        encode_s=1.3,
        first_token_s=0.7,
        prefill_tokens_per_s=0.7,
        decode_tokens_per_s=1.4,
        peak_memory_bytes=1.5,
    )
    assert changes(compare(result(), result([now]))) == {
        "read_s": "no difference",
        "tile_s": "no difference",
        "encode_s": "slower",
        "prefill_tokens_per_s": "slower",
        "first_token_s": "faster",
        "decode_tokens_per_s": "faster",
        "peak_memory_bytes": "more memory",
    }
    assert changes(compare(result(), result([row(peak_memory_bytes=0.5)])))["peak_memory_bytes"] == "less memory"


def test_the_estimate_is_the_factor() -> None:
    [encode] = [v for v in compare(result(), result([row(seed=1, encode_s=1.3)])).verdicts if v.stage.key == "encode_s"]
    assert encode.interval is not None
    assert encode.interval.low < 1.3 < encode.interval.high
    assert encode.ratio == pytest.approx(1.3, rel=0.03)


def test_a_small_change_is_not_told_however_sure() -> None:
    old, new = [1.0 + i * 1e-6 for i in range(9)], [1.02 + i * 1e-6 for i in range(9)]
    interval = ratio_interval(old, new)
    assert interval is not None
    assert interval.low > 1.01
    assert not interval.is_apart


def test_three_rounds_are_too_few_and_four_are_not() -> None:
    assert ratio_interval([1.0] * 3, [2.0] * 3) is None
    assert ratio_interval([1.0] * 4, [2.0] * 4) is not None
    found = compare(result([row(n=2)]), result([row(n=2, encode_s=2.0)]))
    assert changes(found)["encode_s"] == "too few rounds"
    [encode] = [verdict for verdict in found.verdicts if verdict.stage.key == "encode_s"]
    assert encode.interval is None
    assert encode.ratio == pytest.approx(2.0)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (4, 4), (4, 6), (5, 5), (6, 3), (1, 9)])
def test_the_null_distribution_is_that_of_all_orders(n: int, m: int) -> None:
    sums = sorted(sum(place - i for i, place in enumerate(chosen)) for chosen in combinations(range(n + m), n))
    cut = _n_beyond(n, m)
    assert sum(value < cut for value in sums) / len(sums) <= 0.025
    assert sum(value <= cut for value in sums) / len(sums) > 0.025


@pytest.mark.parametrize(("n", "exact"), [(60, 1427), (100, 4198), (200, 17735)])
def test_with_many_rounds_the_null_distribution_is_nearly_normal(n: int, exact: int) -> None:
    assert exact - 1 <= _n_beyond(n, n) <= exact


def test_hundreds_of_rounds_are_compared() -> None:
    old, new = (result([row(n=600, seed=seed, encode_s=1 + seed / 10)]) for seed in (0, 1))
    assert changes(compare(old, new))["encode_s"] == "slower"
    assert ratio_interval([1.0] * 1000, [2.0] * 4) is not None


def test_the_interval_holds_the_truth_95_times_of_100() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        old, new = (list(np.exp(rng.normal(shift, 0.1, 6))) for shift in (0.0, 0.2))
        interval = ratio_interval(old, new)
        assert interval is not None
        hits += interval.low <= math.exp(0.2) <= interval.high
    assert 0.92 < hits / 300 <= 1


@given(st.lists(st.floats(0.5, 2), min_size=4, max_size=9), st.lists(st.floats(0.5, 2), min_size=4, max_size=9))
def test_the_other_way_round_is_the_inverse(old: list[float], new: list[float]) -> None:
    forth, back = ratio_interval(old, new), ratio_interval(new, old)
    assert forth is not None
    assert back is not None
    assert forth.low <= forth.ratio <= forth.high
    assert forth.ratio == pytest.approx(1 / back.ratio)
    assert forth.low == pytest.approx(1 / back.high)


def note(old: Result, new: Result) -> str:
    return " | ".join(compare(old, new).notes)


def test_another_machine_and_another_model_are_said_plainly() -> None:
    other = replace(MACHINE, cpu="Another CPU", n_cores=None)
    assert note(result(), result(machine=other)).startswith(
        "a different machine, so this says nothing about a change of the software "
        "(processor: Some <CPU> before, Another CPU now; physical cores: 4; 8 logical in use before, unknown; 8"
    )
    assert "a different model, so this says nothing" in note(result(), result(model_id="cd" * 32))
    assert "(a-model before, b now)" in note(result(), result(model_id="cd" * 32, model="b"))
    assert note(result(), result(picture="ef" * 32)) == "a different picture"


def test_other_versions_are_told() -> None:
    other = replace(MACHINE, versions={**MACHINE.versions, "onnxruntime": "1.32.0"})
    assert note(result(), result(machine=other)) == "changed since then: onnxruntime 1.31.1 -> 1.32.0"
    fewer = replace(MACHINE, versions={"edgevl": "0.1.0"})  # as an edgevl that looked at others wrote it
    assert note(result(machine=fewer), result()) == "changed since then: onnxruntime unknown -> 1.31.1"
    more = replace(MACHINE, versions={**MACHINE.versions, "openvino": "2026.4.1"})
    assert note(result(), result(machine=more)) == "changed since then: openvino unknown -> 2026.4.1"


def test_a_machine_at_another_pace_is_told() -> None:
    slow = result(yardstick_s=[value * 1.5 for value in result().yardstick_s])
    assert "the machine itself is slower than then: a fixed computation takes 1.5" in note(result(), slow)
    assert "the machine itself is faster" in note(slow, result())


def test_what_only_one_measured_is_named() -> None:
    found = compare(result([row((256, 256)), row()]), result([row(), row(threads=1)]))
    assert found.notes == ["only then: 256x256 with 2 threads", "only now: 512x512 with 1 thread"]
    assert {verdict.size for verdict in found.verdicts} == {(512, 512)}
    assert "nothing to compare" in compare(result([row((256, 256))]), result()).summary


def test_figures_that_only_one_measured_are_named() -> None:
    old, new = row(), row()
    old.values["peak_bytes"] = old.values.pop("peak_memory_bytes")  # as in results of format 1
    new.values["cold_start_s"] = [0.6]
    found = compare(result([old]), result([new, row_of_any()]))
    assert found.notes == [
        "only then: peak memory, graphs compiled anew",
        "only now: peak memory, cold start, any picture with 2 threads",
    ]
    assert "peak memory" not in {verdict.stage.title for verdict in found.verdicts}


def test_what_does_not_depend_on_a_picture_is_compared_too() -> None:
    found = compare(result([row_of_any()]), result([row_of_any(seed=1, decode_1024_tokens_per_s=0.8)]))
    assert found.notes == []
    assert [(v.size, v.stage.title, v.change) for v in found.verdicts if v.is_change] == [
        (None, "decode at 1,024 tokens", "slower")
    ]
    assert len(found.verdicts) == 3


def test_a_comparison_is_worse_where_something_is_slower_or_larger() -> None:
    assert not compare(result(), result([row(seed=1, encode_s=0.7)])).is_worse
    assert compare(result(), result([row(seed=1, encode_s=1.3)])).is_worse
    assert compare(result(), result([row(seed=1, peak_memory_bytes=1.5)])).is_worse
    assert compare(result(), result()).n_judged == 6, "all but memory, which is measured once"
    assert compare(result([row(n=3)]), result([row(n=3)])).n_judged == 0


def test_other_prompts_are_told() -> None:
    assert "other tiles" in note(result(), result([replace(row(), n_tiles=6)]))
