"""What bounds the comparison's figures: counts of operations and bytes, kernels by kind, and the table.

Engines run on a checkpoint of a few layers: what they are counted to do is right, what they take means nothing.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import profile
from benchmarks.bounds import BF16, FLOAT32, FLOATS, INT8, READ, Figure, Kind, decoder, document, encoder, peaks, total
from benchmarks.bounds.first_word import ENCODING, PROMPT, needing
from benchmarks.bounds.kinds import ATTENTION, FLOAT_PRODUCTS, INT8_PRODUCTS, NORMS, PRODUCTS, REST, by_kind
from benchmarks.bounds.onnx_kernels import Kernel, kernels_of_runs
from benchmarks.peers import case as cases
from benchmarks.peers import own
from benchmarks.peers.case import Case
from edgevl.engine.native import decoder as native
from edgevl.machine import describe
from edgevl.model import manifest

QUICK = profile.Effort(1, 1, 2, (128,), peaks.Sizes(n_bytes=1 << 20, side=64, n_turns=1))
TOKENS, WIDTH, BETWEEN, PATCH, LAYERS = 64, 64, 128, 8, 2
"""Of the tiny checkpoint: patches of a tile, width of both models and of their MLPs, side of a patch, layers."""


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny case with a drawn picture of 5 tiles, exported with an int4 and an int8 decoder."""
    folder = tmp_path_factory.mktemp("cases")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "CACHE", folder)
        made = Case("tiny", folder / "no-shared", n_threads=1, grid=2)
        made.make(2)
        for variant in (profile.INT4, profile.INT8):
            own.build(made, variant)
        yield made


def event(name: str, ts: int, dur: int, operator: str = "", **shapes: Any) -> dict[str, Any]:
    """Return what onnxruntime's profiler writes of a run, or of an operator's kernel."""
    if not operator:
        return {"cat": "Session", "name": name, "ts": ts, "dur": dur, "args": {}}
    return {"cat": "Node", "name": name, "ts": ts, "dur": dur, "args": {"op_name": operator, **shapes}}


class TestKernels:
    def test_each_belongs_to_the_run_in_which_it_began(self) -> None:
        shapes = {"input_type_shape": [{"float": [1, 4]}, {"int8": [4]}], "output_type_shape": [{"float": [1, 3]}]}
        events = [
            event("model_run", 100, 50),
            event("a_kernel_time", 110, 7, "MatMulNBits", **shapes),
            event("a_fence_before", 109, 1, "MatMulNBits", **shapes),
            event("model_run", 200, 50),
            event("b_kernel_time", 210, 3, "Add"),
            event("model_loading_uri", 0, 90),
        ]
        first, second = kernels_of_runs(events)
        assert first == [Kernel("MatMulNBits", 7e-6, [[1, 4], [4]], [[1, 3]])]
        assert [kernel.kind for kernel in second] == [REST]

    def test_operations_are_counted_from_shapes(self) -> None:
        product = Kernel("MatMulIntegerToFloat", 0.0, [[1, 5, 4], []], [[1, 5, 3]])
        assert (product.kind, product.needs(0)) == (INT8_PRODUCTS, {INT8: 2 * 5 * 4 * 3})
        by_head = Kernel("FusedMatMul", 0.0, [[1, 2, 5, 4], [1, 2, 4, 5]], [[1, 2, 5, 5]])
        assert (by_head.kind, by_head.needs(0)) == (ATTENTION, {FLOAT32: 2 * 2 * 5 * 5 * 4})
        patches = Kernel("Conv", 0.0, [[1, 3, 16, 16], [7, 3, 8, 8]], [[1, 7, 2, 2]])
        assert (patches.kind, patches.needs(0)) == (FLOAT_PRODUCTS, {FLOAT32: 2 * 7 * 4 * 3 * 64})

    def test_attention_is_counted_by_what_tokens_look_at(self) -> None:
        fed = decoder.Fed(n_held=10, n=3)
        assert fed.n_pairs == 11 + 12 + 13
        attention = Kernel("GroupQueryAttention", 0.0, [[1, 3, 24]], [[1, 3, 8]])
        assert attention.needs(fed.n_pairs) == {FLOAT32: 4 * 8 * fed.n_pairs}

    def test_kinds_add_up_in_each_round_and_needs_are_those_of_one(self) -> None:
        rounds = [[(NORMS, 1.0, {}), (PRODUCTS, 2.0, {READ: 5.0}), (PRODUCTS, 3.0, {READ: 6.0})]] * 2
        kinds = by_kind(rounds)
        assert list(kinds) == [PRODUCTS, NORMS]
        assert kinds[PRODUCTS] == Kind([5.0, 5.0], {READ: 11.0})


class TestPeaks:
    def test_every_way_is_measured_in_every_turn_but_the_first(self) -> None:
        reached = peaks.measure(peaks.Sizes(n_bytes=1 << 20, side=64, n_turns=2), n_threads=1)
        assert {READ, INT8, FLOAT32} <= set(reached)
        assert all(len(values) == 2 and min(values) > 0 for ways in reached.values() for values in ways.values())

    def test_the_way_with_the_highest_median_is_the_peak(self) -> None:
        assert peaks.best({"lucky once": [9.0, 1.0, 1.0], "steady": [2.0, 2.0, 2.0]}) == "steady"

    def test_turns_before_and_after_the_figures_are_one(self) -> None:
        assert peaks.joined({READ: {"numpy": [1.0]}}, {READ: {"numpy": [3.0, 2.0]}}) == {
            READ: {"numpy": [1.0, 3.0, 2.0]}
        }

    def test_products_are_products(self) -> None:
        product: Any = peaks._onnxruntime(32, 1, np.uint8)
        [found] = product()
        first, second = (peaks._matrix(32, dtype).astype(np.int32) for dtype in (np.uint8, np.int8))
        assert np.array_equal(found, first @ second)


def encoder_needs() -> dict[str, float]:
    """Return the operations of a tile of the tiny checkpoint, by hand, but for the projector's."""
    products = LAYERS * TOKENS * (4 * WIDTH * WIDTH + 2 * WIDTH * BETWEEN)
    attention = LAYERS * 2 * TOKENS * TOKENS * WIDTH
    patches = TOKENS * WIDTH * 3 * PATCH * PATCH
    return {INT8: 2.0 * products, "attention": 2.0 * attention, "patches": 2.0 * patches}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_tile_needs_the_same_on_every_engine(case: Case, engine: str) -> None:
    if find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")
    folder, values = own.folder(case, profile.INT4), np.array(case.load("pixel_values")[:1])
    path = folder / manifest.read(folder).vision.file
    if engine == "openvino":
        kinds = encoder.openvino_kinds(path, values, 2, n_at_once=2, n_turns=2, is_quantized=True)
    else:
        kinds = encoder.onnxruntime_kinds(path, values, 1, n_turns=2)
    wanted, projector = encoder_needs(), 2.0 * 4 * (16 * WIDTH) * WIDTH
    assert kinds[INT8_PRODUCTS].needs == {INT8: wanted[INT8] + projector}
    assert sum(kinds[ATTENTION].needs.values()) == wanted["attention"]
    if engine == "openvino" and {"AVX512", "VNNI"} <= set(describe().features or ()):  # queries and keys are int8 there
        assert kinds[ATTENTION].needs[INT8] == wanted["attention"] / 2
    assert sum(kinds[FLOAT_PRODUCTS].needs.values()) == wanted["patches"]
    assert NORMS in kinds
    assert all(len(kind.seconds) == 2 for kind in kinds.values())


class TestDecoder:
    def test_long_steps_are_fed_in_pieces_of_one_size(self) -> None:
        assert decoder.pieces([700, 5]) == [
            decoder.Fed(0, 234),
            decoder.Fed(234, 233),
            decoder.Fed(467, 233),
            decoder.Fed(700, 5),
        ]

    @pytest.mark.parametrize("variant", [profile.INT4, profile.INT8], ids=lambda variant: variant.name)
    def test_a_token_reads_its_weights_and_what_is_held(self, case: Case, variant: Any) -> None:
        [figure] = decoder.tokens(case, variant, (128,), n_tokens=3, n_turns=2)
        spec = manifest.read(own.folder(case, variant)).decoder
        bits = int(spec.precision.removeprefix("int"))
        n_weights = LAYERS * WIDTH * (2 * WIDTH + WIDTH + 3 * BETWEEN) + spec.vocab_size * WIDTH
        assert figure.kinds[PRODUCTS].needs == {READ: n_weights * (bits / 8 + 4 / 32)}  # a scale for 32 of them
        assert figure.kinds[NORMS].needs == {READ: (2 * LAYERS + 1) * WIDTH * 4}
        held = 2 * spec.n_layers * spec.n_kv_heads * spec.head_dim * 4 * 128
        assert figure.kinds[ATTENTION].needs == {READ: held}
        of_ours = held // 2 if native.backend() else held  # which holds them in half precision
        assert figure.needs == total([figure.kinds[PRODUCTS].needs, figure.kinds[NORMS].needs, {READ: of_ours}])
        assert len(figure.seconds) == 2
        assert figure.kinds_by.endswith(", by kernel")
        assert all(len(kind.seconds) == 2 for kind in figure.kinds.values())

    def test_tokens_are_timed_behind_what_is_held(self) -> None:
        class Fake:
            def __init__(self) -> None:
                self.n_past, self.seen = 0, list[tuple[int, int]]()

            def extend(self, chunk: Any) -> bool:
                self.seen.append((self.n_past, len(chunk)))
                self.n_past += len(chunk)
                return True

            def truncate(self, n: int) -> None:
                self.n_past = n

        fake: Any = Fake()
        assert len(decoder.token_seconds(fake, np.arange(20), 10, n_tokens=2, n_turns=3)) == 3
        assert fake.seen == [(0, 10), *[(10, 1), (11, 1)] * 4]


def test_everything_is_measured_and_shown(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "_apart", lambda case, work, *arguments: work(*arguments))
    found = profile.measure(case, QUICK)
    tile, prompt, four, eight, word = found["figures"]
    assert [one["what"] for one in (tile, four, eight)] == [
        "a tile",
        "a token, 4 bits, 128 held",
        "a token, 8 bits, 128 held",
    ]
    n_tiles = case.prompt["n_tiles"]
    for name in (INT8, *FLOATS):
        assert word["needs"].get(name, 0) == n_tiles * tile["needs"].get(name, 0) + prompt["needs"].get(name, 0)
    assert sum(part["seconds"]["median"] for part in word["kinds"].values()) >= 0.99 * word["seconds"]["median"]
    assert four["needs"][READ] < eight["needs"][READ]
    text = document.section(settled(found))
    assert all(f"| {one['what']}: " in text for one in found["figures"])


def test_work_is_done_in_a_process_of_its_own(case: Case) -> None:
    assert profile._apart(case, os.getpid) != os.getpid()
    assert profile._apart(case, os.getenv, "EDGEVL_STORE_DIR") == str(case.path("store"))


def settled(measured: dict[str, Any]) -> dict[str, Any]:
    """Return results as they are written."""
    return {
        "model": "256m",
        "commit": "abc",
        "machine": {"cpu": "Some CPU", "cores": 2},
        "settings": {"threads": 2, "awake": True},
        "noise": {"stolen_share": 0.01},
        **measured,
    }


class TestSection:
    PEAKS = document.peaks_of({READ: {"numpy": [9e9, 10e9, 10e9]}, INT8: {"slow": [1e9], "quick": [5e11]}})

    def section(self, *figures: Figure) -> list[str]:
        found = {"peaks": self.PEAKS, "figures": [document.figure_of(figure, self.PEAKS) for figure in figures]}
        return document.section(settled(found)).splitlines()

    def test_the_machine_is_named_with_its_peaks(self) -> None:
        assert self.section()[0] == (
            "Some CPU, 2 cores kept awake, 2 threads; shapes 256m; medians; commit `abc`. Peaks: "
            "10.0 (9.0 to 10.0) GB/s read (numpy); 500 (500 to 500) G/s int8 (quick)."
        )

    def test_a_figure_is_set_against_the_peak(self) -> None:
        kinds = {NORMS: Kind([0.05]), INT8_PRODUCTS: Kind([0.25], {INT8: 1e11})}
        figure = Figure("a tile", "engine", [0.4, 0.4, 0.5], {INT8: 1e11}, kinds, "engine")
        assert self.section(figure)[4] == (
            "| a tile: engine | 100 G int8 | 0.20 s | 0.40 s | 50 % | int8 products 0.25 s (80 %), norms 50 ms |"
        )

    def test_kernels_of_another_engine_have_a_row_of_their_own(self) -> None:
        kinds = {PRODUCTS: Kind([0.016], {READ: 8e7}), ATTENTION: Kind([0.004], {READ: 2e7}), NORMS: Kind([0.001])}
        figure = Figure("a token", "native", [0.0125], {READ: 1e8}, kinds, "onnxruntime, by kernel")
        assert self.section(figure)[4:6] == [
            "| a token: native | 100 MB read | 10 ms | 12 ms | 80 % |  |",
            "| onnxruntime, by kernel | 100 MB read | 10 ms | 21 ms | 48 % | "
            "products 16 ms (50 %), attention 4 ms (50 %), norms 1 ms |",
        ]

    def test_needs_are_told_in_billions_and_megabytes(self) -> None:
        assert document._needs({INT8: 3.2241e12, FLOAT32: 3.46e10, READ: 9.04e7}) == (
            "3,224 G int8, 34.6 G float32, 90 MB read"
        )
        assert document._needs({}) == ""

    @pytest.mark.parametrize(
        ("seconds", "said"),
        [(0.5, "0.50 s"), (0.1, "0.10 s"), (0.0998, "0.10 s"), (0.0994, "99 ms"), (0.0016, "1.6 ms")],
    )
    def test_times_are_told_in_plain_numbers(self, seconds: float, said: str) -> None:
        assert document._time(seconds) == said

    def test_unsteady_figures_are_marked_and_the_host_is_named(self) -> None:
        lines = self.section(Figure("a tile", "engine", [0.2, 0.4, 0.6], {INT8: 1e11}, {}, "engine"))
        assert "| ~0.40 s |" in lines[4]
        assert lines[-2].startswith("- `~`: quartiles lie more than 20 % ")
        assert lines[-1] == "- the host kept 1 % of the time in which these cores had work"

    def test_the_first_word_needs_its_tiles_and_its_prompt(self) -> None:
        word = Figure("word", "edgevl", [9.0], {}, {ENCODING: Kind([6.0]), PROMPT: Kind([1.0])}, "edgevl")
        tile, prompt = (Figure("", "", [1.0], needs) for needs in ({INT8: 2.0, BF16: 1.0}, {INT8: 3.0}))
        found = needing(word, tile, prompt, n_tiles=17)
        assert found.needs == total([{INT8: 37.0}, {BF16: 17.0}])
        assert found.kinds[PROMPT] == Kind([1.0], {INT8: 3.0})


def test_results_are_named_by_machine_commit_and_shapes(tmp_path: Path) -> None:
    found = settled({"peaks": {}, "figures": []})
    assert profile.write(found, tmp_path / "results").name == "some-cpu-2-cores-abc-profile-256m.json"


def test_shapes_without_published_configurations_are_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profile.main(["--model", "256m", "--shared", str(tmp_path)]) == 1
    assert "skipped: 256m: " in capsys.readouterr().out
