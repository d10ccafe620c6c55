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
