"""What a comparison's tables say, without running anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report, tables
from benchmarks.compare import NOT_ASKED
from benchmarks.peers import VARIANTS

INT4, INT8 = (report.OURS.format(decoder) for decoder in ("int4", "int8"))
MIXED = "edgevl, int8 vision, llama.cpp Q4_0 decoder"
LLAMA_Q4, LLAMA_Q8 = "llama.cpp, bf16 mmproj, Q4_0 decoder", "llama.cpp, bf16 mmproj, Q8_0 decoder"
TORCH = "PyTorch, bfloat16"
NOISY, QUIET = [0.5, 1.0, 1.5], [1.0, 1.0, 1.0]
MARK = "- `~`: quartiles lie more than 20 % of the median apart; this, and what rests on it, may be the machine's noise"
RESULTS = sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("*-compare-*.json"))


def document(figures: dict[str, dict[str, list[float]]], **parts: Any) -> dict[str, Any]:
    """Return the results of a run that measured `figures`; other parts of them by name."""
    samples = report.Samples()
    for name, metrics in figures.items():
        for metric, values in metrics.items():
            for value in values:
                samples.add(name, metric, value)
    summary, checks = samples.summary(), parts.get("checks", {})
    return {
        "model": "256m",
        "commit": "abc",
        "machine": {"cpu": "Some CPU", "cores": 2},
        "settings": {"threads": 2, "tiles": 17, "prompt_tokens": 99, "rounds": 3},
        "must_hold": [*report.ratios(summary), *report.counts(summary, checks)],
        "skipped": {},
        "checks": checks,
        "about": {},
        "variants": summary,
        **parts,
    }


def lines(found: dict[str, Any]) -> list[str]:
    return tables.section(found, "plot.png").splitlines()


def line(found: dict[str, Any], start: str) -> str:
    """Return the one line that begins like this."""
    [one] = [line for line in lines(found) if line.startswith(start)]
    return one


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, ""),
        (0.33333, "0.3333"),
        (152.25, "152.2"),
        (12345.6, "12,346"),
        (999_999.0, "999,999"),
        (2.5e8, "250 MB"),
    ],
)
def test_figures_are_told_in_plain_numbers(value: float | None, said: str) -> None:
    assert tables._figure(value) == said


class TestLeftOut:
    def test_each_reason_is_a_line_with_the_names(self) -> None:
        skipped = {v.name: NOT_ASKED for v in VARIANTS[1:]} | {TORCH: "torch not installed; pip install\nmore"}
        found = document({INT4: {"encode_tile_s": [1.0]}}, skipped=skipped)
        first, second = (line for line in lines(found) if line.startswith("- left out: "))
        assert first.endswith(f" ({NOT_ASKED})")
        assert first.count("; ") == len(VARIANTS) - 3
        assert second == f"- left out: {TORCH} (torch not installed; pip install)"

    def test_results_that_name_none_are_told_by_their_figures(self) -> None:
        found = document({v.name: {"ready_s": [1.0]} for v in VARIANTS if v.peer not in ("genai", "pytorch")})
        assert line(found, "- left out: ") == (
            "- left out: onnxruntime-genai, int4 decoder; onnxruntime-genai, int8 decoder; "
            "PyTorch, float32; PyTorch, bfloat16 (not run)"
        )

    @pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
    def test_the_published_results_name_every_variant(self, path: Path) -> None:
        found = json.loads(path.read_text(encoding="utf-8"))
        text = tables.section(found, "plot.png")
        assert [variant.name for variant in VARIANTS if variant.name not in text] == []

    def test_nothing_is_said_where_all_have_run(self) -> None:
        found = document({variant.name: {"ready_s": [1.0]} for variant in VARIANTS})
        assert [line for line in lines(found) if line.startswith("- left out")] == []


ONE = {"encode_tile_s": [1.0]}
ENGINES = {"vision": "openvino 2026.4.1 cpu", "decoder": "onnxruntime 1.31.1 cpu"}


class TestEngines:
    def test_one_that_all_share_is_named_once(self) -> None:
        found = document({INT4: ONE, INT8: ONE}, about={INT4: ENGINES, INT8: ENGINES, TORCH: {}})
        assert line(found, "- edgevl ran") == (
            "- edgevl ran image encoders on openvino 2026.4.1 cpu (the extra `openvino`), "
            "decoders on onnxruntime 1.31.1 cpu"
        )

    def test_several_are_named_with_their_variants(self) -> None:
        llama = {**ENGINES, "decoder": "llama.cpp 0.3.36 cpu"}
        plain = {**ENGINES, "vision": "onnxruntime 1.31.1 cpu"}
        found = document({INT4: ONE, INT8: ONE, MIXED: ONE}, about={INT4: ENGINES, INT8: plain, MIXED: llama})
        assert line(found, "- edgevl ran") == (
            "- edgevl ran image encoders on openvino 2026.4.1 cpu (the extra `openvino`; int4 decoder, "
            "llama.cpp Q4_0 decoder) and onnxruntime 1.31.1 cpu (int8 decoder), decoders on onnxruntime 1.31.1 cpu "
            "(int4 decoder, int8 decoder) and llama.cpp 0.3.36 cpu (the extra `gguf`; llama.cpp Q4_0 decoder)"
        )

    def test_results_without_edgevl_name_none(self) -> None:
        assert "edgevl ran" not in "".join(lines(document({TORCH: ONE}, about={TORCH: {}})))


def test_prompts_are_read_with_other_weights_than_the_row_says() -> None:
    said = "- prefill, 4 bits: edgevl reads prompts with int8 weights, in a graph of their own; the others do not"
    measured = {INT4: {"prefill_tokens_per_s": [1.0]}}
    assert said in lines(document(measured, about={INT4: ENGINES}))
    assert said not in lines(document(measured, about={INT4: {**ENGINES, "decoder": "edgevl 1 avx512"}}))
    assert said not in lines(document({INT4: ONE, TORCH: {"prefill_tokens_per_s": [1.0]}}, about={INT4: ENGINES}))


def test_aims_without_a_figure_are_named() -> None:
    decode = {"decode_1024_tokens_per_s": [1.0]}
    found = document({INT4: {**ONE, **decode}, LLAMA_Q4: decode})
    said = line(found, "- aims without a figure in this run: ").partition(": ")[2].split("; ")
    assert len(said) == len(found["must_hold"]) - 1
    assert "encode per tile" in said
    assert "decode at 1k context, 4 bits" not in said
    assert line(found, "| decode at 1k context, 4 bits |").endswith("| 1 | 1 | 1 | **no** |")


class TestBeside:
    def test_wins_and_losses_are_shown_without_a_limit(self) -> None:
        found = document(
            {
                INT4: {"prefill_tokens_per_s": [90.0], "first_token_s": [2.0], "second_first_token_s": [1.0]},
                TORCH: {"prefill_tokens_per_s": [100.0], "first_token_s": [8.0], "ready_s": [1.0]},
                LLAMA_Q4: {"prefill_tokens_per_s": [60.0], "first_token_s": [1.6]},
            }
        )
        start = lines(found).index(
            "| edgevl's figure over the other's, no limit set (**bold**: edgevl is behind) | prefill | first token |"
        )
        rows = lines(found)[start + 2 : start + 4]
        assert rows == [f"| {TORCH} | **0.90** | 0.25 |", f"| {LLAMA_Q4} | 1.50 | **1.25** |"]

    def test_eight_bits_are_set_against_eight_bits(self) -> None:
        decode = {name: {"decode_4096_tokens_per_s": [value]} for name, value in ((INT4, 4.0), (INT8, 2.0))}
        found = document({**decode, LLAMA_Q8: {"decode_4096_tokens_per_s": [4.0]}})
        assert line(found, f"| {LLAMA_Q8} | **") == f"| {LLAMA_Q8} | **0.50** |"

    def test_behind_is_told_by_the_figures_and_not_by_their_rounding(self) -> None:
        found = document({INT4: {"encode_tile_s": [1.0]}, TORCH: {"encode_tile_s": [1.0]}})
        assert f"| {TORCH} | 1.00 |" in lines(found)
        found = document({INT4: {"encode_tile_s": [1.004]}, TORCH: {"encode_tile_s": [1.0]}})
        assert f"| {TORCH} | **1.00** |" in lines(found)

    def test_nothing_is_shown_without_others(self) -> None:
        assert "no limit set" not in "".join(lines(document({INT4: ONE, INT8: ONE, MIXED: ONE})))
        assert "no limit set" not in "".join(lines(document({TORCH: ONE})))

    def test_it_is_printed_after_a_run(self, capsys: pytest.CaptureFixture[str]) -> None:
        noise = {"stolen_share": 0.05}
        tables.show(document({INT4: {"encode_tile_s": NOISY}, TORCH: {"encode_tile_s": [0.5]}}, noise=noise))
        said = capsys.readouterr().out.splitlines()
        assert f"| {TORCH} | ~**2.00** |" in said
        assert MARK.removeprefix("- ") in said
        assert "the host kept 5 % of the time in which these cores had work" in said


def test_further_figures_stand_in_a_second_table() -> None:
    metrics = {
        "read_s": [0.0101],
        "tile_s": [0.25, 0.27],
        "prefill_text_tokens_per_s": [1000.0],
        "decode_128_tokens_per_s": [150.0],
        "decode_4096_tokens_per_s": [50.0],
        "cold_first_token_s": [9.5],
    }
    found = document({INT4: metrics, LLAMA_Q4: {"decode_4096_tokens_per_s": [48.0]}, TORCH: ONE})
    start = lines(found).index(
        "| medians | read, ms | cut, ms | prefill of text, tokens/s | decode at 128, tokens/s | decode at 4k, tokens/s "
        "| first token from the start of the process, s |"
    )
    assert lines(found)[start + 2 : start + 5] == [
        f"| {INT4} | 10.1 | 260 | 1000 | 150 | 50 | 9.5 |",
        f"| {LLAMA_Q4} |  |  |  |  | 48 |  |",
        "",
    ]


class TestNoise:
    def test_figures_and_what_rests_on_them_are_marked(self) -> None:
        found = document(
            {
                INT4: {"encode_tile_s": QUIET, "first_token_s": QUIET, "read_s": QUIET},
                LLAMA_Q4: {"encode_tile_s": NOISY, "first_token_s": QUIET, "read_s": NOISY},
            }
        )
        assert line(found, f"| {LLAMA_Q4} | ~1.00 (").startswith(f"| {LLAMA_Q4} | ~1.00 (0.50 to 1.50) |  |  | 1.0 (")
        assert line(found, f"| {LLAMA_Q4} | ~1000.0 |")
        assert line(found, f"| {LLAMA_Q4} | ~1.00 | ~1.00 | 1.00 |")
        assert line(found, "| encode per tile | ").endswith("| ~1 | 1 | 1 | **no** |")
        assert line(found, "| first token, new image | ").endswith("| 1 | 1 | 1 | **no** |")
        assert MARK in lines(found)

    def test_it_is_told_by_the_figures_of_earlier_results_too(self) -> None:
        found = document({INT4: {"encode_tile_s": NOISY}, LLAMA_Q4: {"encode_tile_s": QUIET}})
        for row in found["must_hold"]:
            row.pop("spread", None)
        assert line(found, "| encode per tile | ").endswith("| ~1 | 1 | 1 | **no** |")

    def test_a_loss_stays_bold(self) -> None:
        found = document({INT4: {"encode_tile_s": QUIET}, TORCH: {"encode_tile_s": [0.25, 0.5, 0.75]}})
        assert line(found, f"| {TORCH} | ~**2.00** |")

    def test_steady_figures_are_not_marked(self) -> None:
        text = "\n".join(lines(document({INT4: {"encode_tile_s": QUIET}, LLAMA_Q4: {"encode_tile_s": QUIET}})))
        assert "~" not in text

    def test_time_that_the_host_kept_is_named(self) -> None:
        found = document({INT4: ONE}, noise={"stolen_share": 0.123})
        assert "- the host kept 12 % of the time in which these cores had work" in lines(found)
        assert "the host kept" not in "".join(lines(document({INT4: ONE}, noise={"stolen_share": None})))
        assert "the host kept" not in "".join(lines(document({INT4: ONE})))
