"""From the samples of a comparison to figures, verdicts, a JSON document and a plot."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cold import _commit, machine, slug
from benchmarks.peers import AIMED_CONTEXT, VARIANTS

if TYPE_CHECKING:
    from benchmarks.compare import Comparison

MAX_SPREAD = 0.2
"""How far apart a steady figure's quartiles may lie, over its median."""
OURS = "edgevl, int8 vision, {} decoder"
PACKAGES = (
    "llama-cpp-python",
    "gguf",
    "openvino",
    "openvino-genai",
    "nncf",
    "onnxruntime-genai",
    "torch",
    "transformers",
)


class Samples:
    """What was measured: values by variant and metric, in the order of the rounds."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, list[float]]] = {}

    def add(self, variant: str, metric: str, value: float) -> None:
        """Keep one value."""
        self._values.setdefault(variant, {}).setdefault(metric, []).append(float(f"{value:.6g}"))

    def summary(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return median, quartiles and extremes of every metric, and the values."""
        return {
            variant: {metric: _spread(values) for metric, values in metrics.items()}
            for variant, metrics in self._values.items()
        }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {
        "median": statistics.median(values),
        "quartiles": [quartiles[0], quartiles[2]],
        "lowest": min(values),
        "highest": max(values),
        "values": list(values),
    }


def relative_spread(found: dict[str, Any]) -> float:
    """Return how far apart a figure's quartiles lie, over its median."""
    low, high = found["quartiles"]
    return float((high - low) / found["median"]) if found["median"] else 0.0


def is_unsteady(found: dict[str, Any]) -> bool:
    """Return whether a figure's quartiles lie so far apart that it may be the machine's noise."""
    return relative_spread(found) > MAX_SPREAD


@dataclass(frozen=True)
class Ratio:
    """One line that must hold: our median over the best median of a peer's variants.

    `theirs` are patterns of variant names; `limit` is an upper bound for "<=" and a lower one for ">=".
    """

    what: str
    ours: tuple[str, str]  # decoder, metric
    theirs: tuple[str, str]  # pattern, metric
    sign: str
    limit: float


ANY, Q4, Q8, OPENVINO = r"^llama\.cpp", r"^llama\.cpp.*Q4_0 decoder", r"^llama\.cpp.*Q8_0 decoder", "^OpenVINO, int8"
MIXED = "llama.cpp Q4_0"
EIGHT_BITS = "(int8|Q8_0) decoder"
_PREFILL, _TEXT, _DECODE = "prefill_tokens_per_s", "prefill_text_tokens_per_s", f"decode_{AIMED_CONTEXT}_tokens_per_s"
RATIOS = (
    Ratio("encode per tile", ("int4", "encode_tile_s"), (ANY, "encode_tile_s"), "<=", 0.33),
    Ratio("encode per tile, to OpenVINO int8", ("int4", "encode_tile_s"), (OPENVINO, "encode_tile_s"), "<=", 1.0),
    Ratio("prefill of the prompt, 4 bits", ("int4", _PREFILL), (Q4, _PREFILL), ">=", 1.5),
    Ratio("prefill of text, 4 bits", ("int4", _TEXT), (Q4, _TEXT), ">=", 1.5),
    Ratio("prefill of the prompt, 8 bits", ("int8", _PREFILL), (Q8, _PREFILL), ">=", 1.5),
    Ratio("decode at 1k context, 4 bits", ("int4", _DECODE), (Q4, _DECODE), ">=", 1.25),
    Ratio("decode at 1k context, 8 bits", ("int8", _DECODE), (Q8, _DECODE), ">=", 1.25),
    Ratio("first token, new image", ("int4", "first_token_s"), (ANY, "first_token_s"), "<=", 0.36),
    Ratio(
        "first token, same image, new question, new process",
        ("int4", "second_first_token_s"),
        (ANY, "first_token_s"),
        "<=",
        0.03,
    ),
    Ratio(
        "the same from the start of the process",
        ("int4", "second_cold_first_token_s"),
        (ANY, "cold_first_token_s"),
        "<=",
        0.03,
    ),
    Ratio("peak memory", ("int4", "peak_rss_bytes"), (ANY, "peak_rss_bytes"), "<=", 1.0),
    Ratio("first token, its own decoder file", (MIXED, "first_token_s"), (Q4, "first_token_s"), "<=", 0.45),
    Ratio("decode at 1k context, its own decoder file", (MIXED, _DECODE), (Q4, _DECODE), ">=", 0.97),
    Ratio("peak memory, its own decoder file", (MIXED, "peak_rss_bytes"), (Q4, "peak_rss_bytes"), "<=", 1.1),
)
MIN_COSINE = 0.999


def document(comparison: Comparison, n_cores: int, is_awake: bool) -> dict[str, Any]:
    """Return everything as plain data."""
    summary, case = comparison.samples.summary(), comparison.case
    return {
        "what": "one picture of 640x488 pixels, random weights, every peer on the same checkpoint",
        "model": case.model,
        "commit": _commit(),
        "machine": {**machine(n_cores), **_versions()},
        "settings": {
            "threads": case.n_threads,
            "tiles": case.prompt["n_tiles"],
            "prompt_tokens": case.prompt["n_tokens"],
            **asdict(comparison.amount),
            "awake": is_awake,
            "peers": comparison.peers,
        },
        "noise": {"stolen_share": comparison.stolen_share},
        "must_hold": [*ratios(summary), *counts(summary, comparison.checks)],
        "skipped": comparison.skipped,
        "checks": comparison.checks,
        "about": comparison.about,
        "variants": summary,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def ratios(summary: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a verdict per ratio; `holds` is None where a side was not measured."""
    return [_verdict(row, summary) for row in RATIOS]


def _verdict(row: Ratio, summary: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    ours = summary.get(OURS.format(row.ours[0]), {}).get(row.ours[1])
    pattern, metric = row.theirs
    found = {name: m[metric] for name, m in summary.items() if re.search(pattern, name) and metric in m}
    verdict: dict[str, Any] = {"what": row.what, "limit": f"{row.sign} {row.limit}", "holds": None}
    if ours is None or not found:
        return verdict
    best = (min if row.sign == "<=" else max)(found, key=lambda name: found[name]["median"])
    theirs = found[best]
    ratio = ours["median"] / theirs["median"]
    return {
        **verdict,
        "holds": ratio <= row.limit if row.sign == "<=" else ratio >= row.limit,
        "ratio": ratio,
        "ours": ours["median"],
        "theirs": theirs["median"],
        "best": best,
        "spread": max(relative_spread(ours), relative_spread(theirs)),
    }


def counts(summary: dict[str, dict[str, dict[str, Any]]], checks: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return verdicts that are no ratios: features near enough, and no tile encoded without need."""
    name = OURS.format("int4")
    cosine = checks.get(name, {}).get("feature_cosine", {}).get("mean")
    metrics = summary.get(name, {})
    encoded, changed = (metrics.get(f"next_screen_n_{what}", {}).get("median") for what in ("encoded", "changed"))
    return [
        {
            "what": "feature cosine to float32",
            "limit": f">= {MIN_COSINE}",
            "holds": None if cosine is None else cosine >= MIN_COSINE,
            "ours": cosine,
        },
        {
            "what": "next screenshot: tiles encoded, the changed one and the overview",
            "limit": f"<= {changed}",
            "holds": None if encoded is None or changed is None else encoded <= changed,
            "ours": encoded,
        },
    ]


def verdict(must_hold: Sequence[dict[str, Any]]) -> tuple[int, str]:
    """Return whether all aims are met, as an exit code (0: yes, 1: no, 2: some were not measured) and in words.

    A run that did not measure an aim has not shown that it is met, nor that it is missed.
    """
    missed = [row["what"] for row in must_hold if row["holds"] is False]
    said = [f"aims met: {sum(row['holds'] is True for row in must_hold)} of {len(must_hold)}"]
    if missed:
        said.append(f"missed: {'; '.join(missed)}")
    if unmeasured := without_figure(must_hold):
        said.append(f"not measured: {'; '.join(unmeasured)}")
    return 1 if missed else 2 if unmeasured else 0, "\n".join(said)


def without_figure(must_hold: Sequence[dict[str, Any]]) -> list[str]:
    """Return the aims of which a side was not measured."""
    return [row["what"] for row in must_hold if row["holds"] is None]


@dataclass(frozen=True)
class Beside:
    """Our figure over another variant's; no limit is set."""

    ratio: float
    is_behind: bool
    is_unsteady: bool


def beside(summary: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Beside]]:
    """Return our figures over those of every other variant, by its name and metric.

    One with an 8-bit decoder is set against our int8 decoder, any other against our int4 one.
    """
    return {
        name: _beside(summary.get(OURS.format("int8" if re.search(EIGHT_BITS, name) else "int4"), {}), theirs)
        for name, theirs in summary.items()
        if not name.startswith("edgevl")
    }


def _beside(ours: dict[str, dict[str, Any]], theirs: dict[str, dict[str, Any]]) -> dict[str, Beside]:
    return {metric: _over(metric, ours[metric], theirs[metric]) for metric in theirs if metric in ours}


def _over(metric: str, ours: dict[str, Any], theirs: dict[str, Any]) -> Beside:
    ratio = ours["median"] / theirs["median"]
    is_behind = ratio < 1 if metric.endswith("_per_s") else ratio > 1
    return Beside(ratio, is_behind, is_unsteady(ours) or is_unsteady(theirs))


def left_out(found: dict[str, Any]) -> dict[str, str]:
    """Return every variant that took no part, or not to the end, with the reason.

    Earlier results do not name what was not asked for: a variant without figures is "not run" then.
    """
    absent = {variant.name: "not run" for variant in VARIANTS if variant.name not in found["variants"]}
    return {**absent, **found["skipped"]}


def write(found: dict[str, Any], folder: Path) -> list[Path]:
    """Write the document and its plot to `folder`; return their paths."""
    about = found["machine"]
    name = slug(f"{about['cpu']} {about['cores']} cores")
    path = folder / f"{name}-{found['commit']}-compare-{found['model']}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return [path, *plot(found, path.with_suffix(".png"))]


COLOURS = {"edgevl": "#1b7f5c", "llama.cpp": "#c8553d", "OpenVINO": "#3d5a80", "onnxruntime": "#8d7a9e"}


def plot(found: dict[str, Any], path: Path) -> list[Path]:
    """Draw four panels: encode per tile, first token, decode speed and memory; nothing without matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("skipped: plot: matplotlib not installed")
        return []
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(13, 9), layout="constrained")
    variants = found["variants"]
    _bars(panels[0, 0], variants, "encode_tile_s", "encode one tile, seconds", 1)
    _bars(panels[0, 1], variants, "first_token_s", f"first token, {found['settings']['tiles']} tiles, seconds", 1)
    _lines(panels[1, 0], variants, found["settings"]["contexts"])
    _bars(panels[1, 1], variants, "peak_rss_bytes", "peak memory, MB", 1e-6)
    about = found["machine"]
    figure.suptitle(f"{found['model']}, {about['cpu']}, {found['settings']['threads']} threads, {found['commit']}")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    return [path]


def _colour(name: str) -> str:
    return next((colour for peer, colour in COLOURS.items() if name.startswith(peer)), "#999999")


def _bars(axes: Any, variants: dict[str, Any], metric: str, title: str, factor: float) -> None:
    shown = {name: metrics[metric] for name, metrics in reversed(variants.items()) if metric in metrics}
    medians = [spread["median"] * factor for spread in shown.values()]
    low = [(s["median"] - s["quartiles"][0]) * factor for s in shown.values()]
    high = [(s["quartiles"][1] - s["median"]) * factor for s in shown.values()]
    axes.barh(list(shown), medians, xerr=[low, high], color=[_colour(name) for name in shown], capsize=2)
    axes.set_title(title)
    axes.tick_params(axis="y", labelsize=8)


def _lines(axes: Any, variants: dict[str, Any], contexts: Sequence[int]) -> None:
    for number, (name, metrics) in enumerate(variants.items()):
        points = [(n, metrics.get(f"decode_{n}_tokens_per_s")) for n in contexts]
        if all(point is not None for _, point in points):
            heights = [point["median"] for _, point in points if point is not None]
            style = ("-", "--", ":")[number % 3]
            axes.plot([str(n) for n, _ in points], heights, style, marker="o", color=_colour(name), label=name)
    axes.set_title("decode, tokens per second, by tokens held")
    axes.set_ylim(bottom=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7)
